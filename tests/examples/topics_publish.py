"""Report a reading under a topic of several words: `python topics_publish.py kitchen.temperature 21.5`."""

from __future__ import annotations

import os
import sys

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

if len(sys.argv) != 3:
    sys.exit("usage: topics_publish.py WORD.WORD... READING")
topic, reading = sys.argv[1:]
with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("readings", exchange_type="topic")
    channel.basic_publish(exchange="readings", routing_key=topic, body=reading)
print(f"reported: {topic} {reading}")
