"""The secret key of made-up SCRAM verifiers: a file in the data directory, so that a restart does not change them.

A challenge that changed with a restart would tell that the user does not exist.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path

LOGIN_KEY = "amqpd.login-key"
SIZE = 32

log = logging.getLogger("amqpd")


def login_key(data_dir: Path | None) -> bytes:
    """Return the key of a data directory, and create it if need be; a new one each time without a directory."""
    key = secrets.token_bytes(SIZE)
    if data_dir is None:
        return key
    path = data_dir / LOGIN_KEY
    try:
        with contextlib.suppress(FileNotFoundError):
            stored = path.read_bytes()
            if len(stored) == SIZE:
                return stored
            path.unlink()       # a crash has left a part of it
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(key)
    except OSError as error:
        log.warning(
            "%s cannot be used: %s; make it readable and writable for the broker, since until then each start changes "
            "SCRAM's challenges for users that do not exist", path, error.strerror)
    return key
