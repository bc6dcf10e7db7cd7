"""Run `amqpd` as `python -m amqpd`."""

from __future__ import annotations

import sys

from amqpd.cli import main

if __name__ == "__main__":
    sys.exit(main())
