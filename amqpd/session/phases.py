"""The phases of a connection and what may be said in each, on one screen.

A method that is not in its phase's row is an error; before the connection is open that ends it without a
word of explanation, as on RabbitMQ (see `session/connection.py`).

Spec: §2.2.4; connection class.
"""

from __future__ import annotations

from enum import Enum, auto

from pamqp.base import Frame
from pamqp.commands import Connection


class Phase(Enum):
    """Where the talk of a connection stands."""

    AWAIT_HEADER = auto()
    AWAIT_START_OK = auto()
    AUTHENTICATING = auto()     # the server looks at the password; the client is expected to wait
    AWAIT_TUNE_OK = auto()
    AWAIT_OPEN = auto()
    OPEN = auto()
    CLOSING = auto()            # our close is out; only close and close-ok are heard
    CLOSED = auto()


TRANSITIONS: dict[Phase, dict[type[Frame], Phase]] = {
    Phase.AWAIT_START_OK: {Connection.StartOk: Phase.AUTHENTICATING},
    Phase.AWAIT_TUNE_OK: {Connection.TuneOk: Phase.AWAIT_OPEN},
    Phase.AWAIT_OPEN: {Connection.Open: Phase.OPEN},
    Phase.OPEN: {Connection.Close: Phase.CLOSED, Connection.UpdateSecret: Phase.OPEN},
    Phase.CLOSING: {Connection.Close: Phase.CLOSED, Connection.CloseOk: Phase.CLOSED},
}
