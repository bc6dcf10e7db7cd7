"""The program `amqpctl`: rabbitmqctl's words for a running amqpd, over the control socket in its data directory.

`commands` and `lists` hold the words, `options` what they share, `client` the talk with the broker, `tables` what a
list looks like. Who can open the socket may do everything, so there is no login; nothing here imports the broker.
"""

from __future__ import annotations

from amqpd.ctl.commands import main

__all__ = ["main"]
