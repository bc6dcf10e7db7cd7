"""The type of the table of a channel: the function that handles each method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp.base import Frame

# A handler returns the method to send back, or None if there is none or it has been sent.
Handlers = dict[type[Frame], Callable[[Any], Frame | bytes | None]]
