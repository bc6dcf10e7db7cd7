"""Publish a message and check that a queue took it: `python confirms_publish.py QUEUE TEXT`.

The queue must exist. The exit code is 1 if no queue took the message.
"""

from __future__ import annotations

import os
import sys

import pika
from pika.exceptions import NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)

if len(sys.argv) < 3:
    sys.exit("usage: confirms_publish.py QUEUE TEXT")
queue, text = sys.argv[1], " ".join(sys.argv[2:])
with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.confirm_delivery()          # from now on basic_publish waits for the broker's word
    try:
        channel.basic_publish("", queue, text, PERSISTENT, mandatory=True)
    except UnroutableError:
        sys.exit(f"returned: there is no queue '{queue}'")
    except NackError:
        sys.exit("refused: the broker did not take it")
print(f"confirmed: {text}")
