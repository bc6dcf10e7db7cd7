"""Send one message to a queue: `python hello_send.py [TEXT]`."""

from __future__ import annotations

import os
import sys

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

text = " ".join(sys.argv[1:]) or "hello"
with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("hello")      # both sides declare it, so it does not matter who comes first
    channel.basic_publish(exchange="", routing_key="hello", body=text)
print(f"sent: {text}")
