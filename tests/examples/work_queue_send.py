"""Send a task that must not get lost: `python work_queue_send.py TASK`. Each dot in it is a second of work."""

from __future__ import annotations

import os
import sys

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)

task = " ".join(sys.argv[1:]) or "paint the fence..."
with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.confirm_delivery()          # basic_publish returns once the broker has the task on disk
    channel.queue_declare("tasks", durable=True)
    channel.basic_publish(exchange="", routing_key="tasks", body=task, properties=PERSISTENT)
print(f"handed in: {task}")
