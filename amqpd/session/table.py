"""The table of a channel: which function answers which method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp.base import Frame

# A handler answers with the method to send back, or None where nothing is due or it has spoken for itself.
Handlers = dict[type[Frame], Callable[[Any], Frame | bytes | None]]
