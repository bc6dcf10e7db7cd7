"""Let scrypt cost next to nothing in the test process: the tests log in hundreds of times, at 0.2 s each.

Brokers that tests start as other processes hash as usual. `tests/broker/test_passwords.py` checks the work factor that
amqpd asks for, and hashes with it.
"""

from __future__ import annotations

import hashlib
from typing import Any

WITH_FULL_COST = hashlib.scrypt


def _scrypt(password: bytes, *, n: int, r: int, p: int, **others: Any) -> bytes:
    """Return a hash of the password with the lowest cost."""
    return WITH_FULL_COST(password, n=2, r=1, p=1, **others)


def pytest_configure() -> None:
    """Hash with the lowest cost from now on."""
    setattr(hashlib, "scrypt", _scrypt)
