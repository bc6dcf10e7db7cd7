"""The program `amqpctl`: rabbitmqctl's commands for a running amqpd, over the control socket in its data directory.

`commands` has the table of the commands and their modules, `options` what they share. `client` sends requests to the
broker, `tables` prints lists. A user who can open the socket may do everything, so there is no login. Nothing here
imports the broker.
"""

from __future__ import annotations

from amqpd.ctl.commands import main

__all__ = ["main"]
