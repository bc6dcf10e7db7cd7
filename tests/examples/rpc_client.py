"""Ask the server of rpc_server.py and print its answer: `python rpc_client.py TEXT`."""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
REPLIES = "amq.rabbitmq.reply-to"       # not a queue: answers come straight to the channel that asked

text = " ".join(sys.argv[1:]) or "hello"
question = str(uuid.uuid4())
answers: dict[str, str] = {}


def on_answer(channel: Any, delivery: Any, properties: pika.BasicProperties, body: bytes) -> None:
    """Keep an answer under the question it belongs to."""
    answers[str(properties.correlation_id)] = body.decode()


with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("capitals")
    channel.basic_consume(REPLIES, on_answer, auto_ack=True)    # must be there before the question is asked
    asking = pika.BasicProperties(reply_to=REPLIES, correlation_id=question)
    channel.basic_publish(exchange="", routing_key="capitals", body=text, properties=asking)
    while question not in answers:
        connection.process_data_events(time_limit=None)
print(answers[question])
