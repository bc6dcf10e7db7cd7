"""How a broker is known: the name of its node, the file of its control socket, and whose behaviour it has."""

from __future__ import annotations

NODE_NAME = "amqpd@localhost"
CONTROL_SOCKET = "control.sock"     # in the data directory
RABBITMQ_VERSION = "3.10.8"         # whose behaviour and properties clients find
