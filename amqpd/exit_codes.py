"""The exit codes of both programs: those of sysexits.h where it has one. RabbitMQ docs/cli."""

from __future__ import annotations

EXIT_OK = 0
EXIT_USAGE = 64
EXIT_DATA = 65              # damaged or invalid data
EXIT_NO_USER = 67
EXIT_UNAVAILABLE = 69       # an address is in use, or no broker runs
EXIT_BUG = 70
EXIT_EXISTS = 70            # the object exists already; rabbitmqctl's code
EXIT_IO = 74                # a disk or file error
EXIT_TEMPORARY = 75         # locked by a running broker, or timed out: a retry may help
EXIT_NO_PERMISSION = 77     # a login that is refused, or a user who may not do it
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130
