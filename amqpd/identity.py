"""The identity of a broker: the name of its node, the file of its control socket, and its version of RabbitMQ."""

from __future__ import annotations

NODE_NAME = "amqpd@localhost"
CONTROL_SOCKET = "control.sock"     # in the data directory
RABBITMQ_VERSION = "3.10.8"         # the version whose behaviour amqpd has, and which clients see
