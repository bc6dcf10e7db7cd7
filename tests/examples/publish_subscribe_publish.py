"""Publish to all current subscribers: `python publish_subscribe_publish.py TEXT`."""

from __future__ import annotations

import os
import sys

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

text = " ".join(sys.argv[1:]) or "dinner is ready"
with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("news", exchange_type="fanout")
    channel.basic_publish(exchange="news", routing_key="", body=text)
print(f"published: {text}")
