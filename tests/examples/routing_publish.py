"""Log a line under a level: `python routing_publish.py LEVEL TEXT`."""

from __future__ import annotations

import os
import sys

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

if len(sys.argv) < 3:
    sys.exit("usage: routing_publish.py LEVEL TEXT")
level, text = sys.argv[1], " ".join(sys.argv[2:])
with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("log", exchange_type="direct")
    channel.basic_publish(exchange="log", routing_key=level, body=text)
print(f"logged: {level} {text}")
