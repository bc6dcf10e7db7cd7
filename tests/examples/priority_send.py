"""Send a letter that may overtake others: `python priority_send.py PRIORITY TEXT`, with a priority of 0 to 5."""

from __future__ import annotations

import os
import sys

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

if len(sys.argv) < 3:
    sys.exit("usage: priority_send.py PRIORITY TEXT")
priority, text = int(sys.argv[1]), " ".join(sys.argv[2:])
with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("letters", durable=True, arguments={"x-max-priority": 5})
    channel.basic_publish("", "letters", text, pika.BasicProperties(priority=priority, delivery_mode=2))
print(f"sent: {text}")
