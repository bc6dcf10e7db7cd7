"""The server properties, which describe the broker to a client in `connection.start`."""

from __future__ import annotations

import sys

from amqpd import __version__
from amqpd.identity import RABBITMQ_VERSION


def server_properties() -> dict[str, object]:
    """Return the server properties. Clients check product and version, so these are RabbitMQ's; ours are added.

    RabbitMQ docs/specification (capabilities).
    """
    return {
        "capabilities": dict.fromkeys((
            "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
            "connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
            "direct_reply_to",
        ), True),
        "cluster_name": "amqpd@localhost",
        "copyright": "The amqpd authors",
        "information": "amqpd speaks AMQP 0-9-1 as RabbitMQ does",
        "platform": "Erlang/OTP 25.2.3",
        "product": "RabbitMQ",
        "version": RABBITMQ_VERSION,
        "amqpd_product": "amqpd",
        "amqpd_version": __version__,
        "amqpd_platform": f"Python {sys.version.split()[0]}",
    }
