"""The arguments of basic.publish, decoded once for each value that is not in a cache.

Owns nothing. `wire/publish_runs.py` cuts out the octets; `session/targets.py` decodes those that it has not cached.

Spec: basic.publish; the refusals are RabbitMQ's (`rabbit_framing`).
"""

from __future__ import annotations

from typing import NamedTuple

from amqpd.erlang import erlang_bytes
from amqpd.errors import ConnectionException, ReplyCode


class PublishArguments(NamedTuple):
    """The arguments of a basic.publish; `names` is exchange and routing key as encoded, ready for a delivery."""

    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool
    names: bytes


def read_publish(arguments: bytes) -> PublishArguments:
    """Decode the arguments of a basic.publish, after the ticket. Spec: basic.publish.

    Raises ConnectionException: FRAME_ERROR if they cannot be decoded.
    """
    try:
        key_at = 3 + arguments[2]
        bits_at = key_at + 1 + arguments[key_at]
        bits, = arguments[bits_at:]
        exchange = arguments[3:key_at].decode()
        routing_key = arguments[key_at + 1 : bits_at].decode()
    except UnicodeDecodeError:
        raise ConnectionException(
            ReplyCode.FRAME_ERROR, "Malformed UTF-8 in shortstr", method=(0, 0)) from None
    except (IndexError, ValueError):
        raise ConnectionException(
            ReplyCode.FRAME_ERROR, f"cannot decode {erlang_bytes(arguments[:128])}", method=(60, 40)) from None
    return PublishArguments(exchange, routing_key, bool(bits & 1), bool(bits & 2), arguments[2:bits_at])
