"""The address of a channel's direct replies, which replaces `amq.rabbitmq.reply-to` in its requests.

It looks as on RabbitMQ, for libraries that parse it: the name of the pseudo-queue, and two parts in base64 with
padding. The first is a process in Erlang's external form, the second is the secret.

RabbitMQ docs/direct-reply-to; rabbit_direct_reply_to, pid_recomposition.
"""

from __future__ import annotations

import base64
import secrets

from amqpd.broker.vhost import REPLY_TO

_NODE = b"reply@0"
_VERSION, _NEW_PID, _ATOM = 131, ord("X"), ord("v")
_SECRET_BYTES = 16


def new_reply_address(connection: int, channel: int) -> str:
    """Return an address that cannot be guessed, for a channel of the connection with this number."""
    process = b"".join((
        bytes((_VERSION, _NEW_PID, _ATOM)), len(_NODE).to_bytes(2, "big"), _NODE,
        (connection & 0xFFFFFFFF).to_bytes(4, "big"), channel.to_bytes(4, "big"), bytes(4)))
    return ".".join((REPLY_TO, _base64(process), _base64(secrets.token_bytes(_SECRET_BYTES))))


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
