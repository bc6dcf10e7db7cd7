"""Reply codes, and the two exceptions that become a close on the wire.

Raise where the fault is found. `session/channel.py` turns a `ChannelException` into `channel.close`,
`session/connection.py` turns a `ConnectionException` into `connection.close`; nobody else sends an error.

Spec: §4.8; RabbitMQ's choice of code wherever the two differ.
"""

from __future__ import annotations

from enum import IntEnum

LONGEST_REPLY_TEXT = 255
LONGEST_TEXT = 500      # characters: what a client sent may be in it, and the log tells it


class ReplyCode(IntEnum):
    """The reply codes of AMQP 0-9-1 that a broker sends, with the names RabbitMQ puts before its texts."""

    REPLY_SUCCESS = 200
    NO_ROUTE = 312
    NO_CONSUMERS = 313
    CONNECTION_FORCED = 320
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541


class AmqpException(Exception):
    """A refusal the peer hears about.

    The reply text becomes ``NOT_FOUND - no queue 'orders' in vhost '/'``; with an empty text only the name.
    `class_id` and `method_id` name the method at fault where the raiser knows better than its caller; None
    means the method that was being handled, (0, 0) that no method is to blame. A long text is cut.
    """

    def __init__(self, code: ReplyCode, text: str = "", *, method: tuple[int, int] | None = None) -> None:
        if len(text) > LONGEST_TEXT:
            text = text[: LONGEST_TEXT - 3] + "..."
        super().__init__(f"{code.name} - {text}" if text else code.name)
        self.code = code
        self.text = text
        self.method = method

    @property
    def reply_text(self) -> str:
        """The text for the wire, cut to what a short string holds (in bytes of UTF-8)."""
        return cut_reply_text(str(self))


class ChannelException(AmqpException):
    """Closes the channel it was raised on."""


class ConnectionException(AmqpException):
    """Closes the connection."""


def cut_reply_text(text: str) -> str:
    """Cut a text to the 255 bytes of a short string; a cut one ends in ``...``, as RabbitMQ's do."""
    octets = text.encode()
    if len(octets) <= LONGEST_REPLY_TEXT:
        return text
    return octets[: LONGEST_REPLY_TEXT - 3].decode(errors="ignore") + "..."
