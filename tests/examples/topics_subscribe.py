"""Print readings whose topic matches a pattern: `python topics_subscribe.py 'kitchen.*' '#.temperature'`.

In a pattern, `*` stands for one word and `#` for any number of words, none included.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

patterns = sys.argv[1:] or ["#"]
with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("readings", exchange_type="topic")
    queue = channel.queue_declare("", exclusive=True).method.queue
    for pattern in patterns:
        channel.queue_bind(queue, "readings", routing_key=pattern)
    print("waiting", flush=True)
    for delivery, _, body in channel.consume(queue, auto_ack=True):
        print(f"{delivery.routing_key}: {body.decode()}", flush=True)
