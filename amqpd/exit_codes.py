"""The exit codes of both programs, which are those of sysexits.h where it has one. RabbitMQ docs/cli."""

from __future__ import annotations

EXIT_OK = 0
EXIT_USAGE = 64
EXIT_DATA = 65              # something is damaged, or not what it should be
EXIT_NO_USER = 67
EXIT_UNAVAILABLE = 69       # an address that is taken, a broker that does not run
EXIT_BUG = 70
EXIT_EXISTS = 70            # rabbitmqctl's, of what is there already
EXIT_IO = 74                # the disk, or a file
EXIT_TEMPORARY = 75         # locked by a running broker, or too late: trying again may help
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130
