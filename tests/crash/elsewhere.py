"""`python elsewhere.py serve …`: run the program as on a system other than Linux, as far as Linux can simulate that.

Everything that only Linux or glibc provides is removed; the broker then uses the code that runs on macOS.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

ABSENT = (
    (os, "posix_fallocate"),
    (socket, "SO_PEERCRED"), (socket, "TCP_INFO"), (socket, "TCP_KEEPIDLE"), (socket, "TCP_KEEPINTVL"),
    (socket, "TCP_KEEPCNT"), (socket, "TCP_USER_TIMEOUT"),
    (time, "CLOCK_BOOTTIME"),
)
ABSENT_FROM_LIBC = ("mallopt", "malloc_trim")


class Libc:
    """The C library without what glibc adds to it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._libc = ctypes_cdll(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT_FROM_LIBC:
            raise AttributeError(name)
        return getattr(self._libc, name)


ctypes_cdll = ctypes.CDLL
setattr(ctypes, "CDLL", Libc)
for module, name in ABSENT:
    delattr(module, name)

from amqpd.cli import main  # noqa: E402  (after all that is taken away)
from amqpd.server import resources  # noqa: E402

for measure in (resources.resident_bytes, resources.available_bytes):
    measure.__defaults__ = tuple([Path("/nowhere") for _ in measure.__defaults__ or ()])

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
