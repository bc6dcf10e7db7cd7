"""Reply codes, and the two exceptions that close a channel or a connection.

Raise an exception where the fault is found. `session/channel.py` turns a `ChannelException` into `channel.close`, and
`session/connection.py` a `ConnectionException` into `connection.close`; nothing else sends an error.

Spec: §4.8; RabbitMQ's choice of code where the two differ.
"""

from __future__ import annotations

from enum import IntEnum

LONGEST_REPLY_TEXT = 255
LONGEST_TEXT = 500      # characters; the text may quote what a client sent, and it is logged


class ReplyCode(IntEnum):
    """The reply codes of AMQP 0-9-1 that a broker sends. RabbitMQ puts their names before its texts."""

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
    """A refusal that is sent to the client.

    The reply text becomes ``NOT_FOUND - no queue 'orders' in vhost '/'``; with an empty text, only the name.
    `class_id` and `method_id` name the failed method; None means the method that is being handled, (0, 0) no method.
    A long text is cut.
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
        """The text for the client, cut to 255 bytes of UTF-8."""
        return cut_reply_text(str(self))


class ChannelException(AmqpException):
    """Closes the channel it was raised on."""


class ConnectionException(AmqpException):
    """Closes the connection."""


def cut_reply_text(text: str) -> str:
    """Cut a text to the 255 bytes of a short string; a cut one ends in ``...``, as RabbitMQ's do."""
    encoded = text.encode()
    if len(encoded) <= LONGEST_REPLY_TEXT:
        return text
    return encoded[: LONGEST_REPLY_TEXT - 3].decode(errors="ignore") + "..."


class NoSuchThing(AmqpException):
    """The named user, vhost, parameter or connection does not exist."""

    def __init__(self, text: str) -> None:
        super().__init__(ReplyCode.NOT_FOUND, text)


class AlreadyThere(AmqpException):
    """The named user or vhost exists already."""

    def __init__(self, text: str) -> None:
        super().__init__(ReplyCode.PRECONDITION_FAILED, text)


class ProtectedVhost(AmqpException):
    """The vhost may not be deleted until its protection is removed."""

    def __init__(self, name: str) -> None:
        super().__init__(
            ReplyCode.PRECONDITION_FAILED,
            f"Refusing to delete virtual host '{name}' because it is protected from deletion")
