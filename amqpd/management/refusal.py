"""The refusal of an operator's command, and the checks that several groups of commands share."""

from __future__ import annotations

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE

LONGEST_NAME = 255      # bytes


class Refusal(Exception):
    """A command that is not carried out; has the reason and amqpctl's exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def vhost_of(broker: Broker, name: str) -> Vhost:
    """Return this vhost. Raises Refusal if it does not exist."""
    try:
        return broker.vhosts[name]
    except KeyError:
        raise Refusal(f"Virtual host '{name}' does not exist", EXIT_DATA) from None


def queue_of(broker: Broker, vhost: str, name: str) -> tuple[Vhost, Queue]:
    """Return a vhost and its queue of this name, which may be exclusive. Raises Refusal if one does not exist."""
    home = vhost_of(broker, vhost)
    found = home.queues.get(name)
    if found is None:
        raise Refusal(f"not_found: no queue '{name}' in vhost '{vhost}'", EXIT_UNAVAILABLE)
    return home, found


def exchange_of(vhost: Vhost, name: str) -> Exchange:
    """Return the exchange of this name. Raises Refusal if it does not exist."""
    found = vhost.exchanges.get(name)
    if found is None:
        raise Refusal(f"not_found: no exchange '{name}' in vhost '{vhost.name}'", EXIT_UNAVAILABLE)
    return found


def user_of(broker: Broker, name: str) -> User:
    """Return the user of this name. Raises Refusal if there is none."""
    found = broker.users.get(name)
    if found is None:
        raise Refusal(f'{{:no_such_user, "{name}"}}', EXIT_UNAVAILABLE)
    return found


def check_name(kind: str, name: str) -> None:
    """Check the name of a new user or vhost. Raises Refusal."""
    if not name:
        raise Refusal(f"Bad argument: {kind} cannot be an empty string", EXIT_DATA)
    if len(name.encode()) > LONGEST_NAME:
        raise Refusal(f"Bad argument: {kind} cannot be longer than {LONGEST_NAME} bytes", EXIT_DATA)
