"""The attacks, by kind. Importing this package fills `SHAPES`."""

from __future__ import annotations

from tests.canary.shape import SHAPES
from tests.canary.shapes import (
    bindings, crowds, dead_letters, definitions, expiries, floods, large, logins, measured, memory, moves, routing,
    storms, strangers, web, wide)

KINDS = (
    bindings, crowds, dead_letters, definitions, expiries, floods, large, logins, measured, memory, moves, routing,
    storms, strangers, web, wide)

__all__ = ["KINDS", "SHAPES"]
