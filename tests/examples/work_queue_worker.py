"""Work on tasks, one at a time, beside any number of other workers: `python work_queue_worker.py`.

A task is acked when it is done. If this worker dies before that, another one gets the task. Work that takes minutes
should run in a thread: a connection that is silent for two heartbeats is closed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("tasks", durable=True)
    channel.basic_qos(prefetch_count=1)     # no second task before the first is acked
    print("waiting", flush=True)
    for delivery, _, body in channel.consume("tasks"):
        task = body.decode()
        again = " again" if delivery.redelivered else ""
        print(f"begun{again}: {task}", flush=True)
        time.sleep(task.count("."))
        print(f"done: {task}", flush=True)
        channel.basic_ack(delivery.delivery_tag)
