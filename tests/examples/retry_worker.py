"""Retry failed work later: `python retry_worker.py`, and `python confirms_publish.py chores TEXT` for work.

A chore that fails is rejected, and its queue dead-letters it to a second queue. That queue has no consumer; after
WAIT_MS it dead-letters the chore back to the first one. After MOST_TRIES a chore goes to a third queue. Each `!` in a
chore is a try that fails.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
WAIT_MS = 500
MOST_TRIES = 3


def failures_of(properties: pika.BasicProperties) -> int:
    """How often a chore was rejected, as the broker has noted in its headers."""
    deaths = (properties.headers or {}).get("x-death", [])
    return sum(death["count"] for death in deaths if death["reason"] == "rejected")


with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.confirm_delivery()              # what is put aside is on disk before it is acked
    channel.queue_declare("chores", durable=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "chores.later"})
    channel.queue_declare("chores.later", durable=True, arguments={
        "x-message-ttl": WAIT_MS, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "chores"})
    channel.queue_declare("chores.failed", durable=True)
    channel.basic_qos(prefetch_count=1)
    print("waiting", flush=True)
    for delivery, properties, body in channel.consume("chores"):
        chore, tries = body.decode(), failures_of(properties) + 1
        if chore.count("!") < tries:
            print(f"done at try {tries}: {chore}", flush=True)
            channel.basic_ack(delivery.delivery_tag)
        elif tries < MOST_TRIES:
            print(f"failed at try {tries}: {chore}", flush=True)
            channel.basic_reject(delivery.delivery_tag, requeue=False)
        else:
            channel.basic_publish("", "chores.failed", body, properties)
            channel.basic_ack(delivery.delivery_tag)
            print(f"put aside: {chore}", flush=True)
