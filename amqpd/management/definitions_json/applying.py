"""Carry out the plan of an import, in slices.

Everything has been checked before, so each step is one that cannot be refused, unless the broker has changed since.
Then the step is left out and reported. An import that was interrupted can be repeated: what exists already is left as
it is. `begun` lets the next start do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.passwords import PasswordForm, StoredPassword, password_matches
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.errors import AmqpException
from amqpd.management.definitions_json.plan import AnyDefinition, Plan

SLICE = 50      # definitions; takes some milliseconds

Wait = Callable[[Callable[[], None]], None]     # calls back when the import can go on


class CannotWait(Exception):
    """An import at a start met an object that is still being deleted."""


def hash_passwords(plan: Plan, broker: Broker, form: PasswordForm) -> None:
    """Replace plain passwords by what is stored of them. Takes about 0.1 s for each, and may be called in a thread.

    A user who has that password keeps what is stored, so that the same file changes nothing when it is imported again.
    """
    for name, password in plan.passwords.items():
        user = broker.users.get(name)
        known = None if user is None else user.definition
        if known is None or not password_matches(known, password):
            stored = form.store(password)
        elif form.is_kept_by(known):
            stored = StoredPassword(known.password_hash, known.hashing_algorithm, known.scram_sha256)
        else:
            stored = form.stored_anew(known, password)
        plan.users[name] = replace(
            plan.users[name], password_hash=stored.password_hash, hashing_algorithm=stored.hashing_algorithm,
            scram_sha256=stored.scram_sha256)


def carry_out(plan: Plan, broker: Broker) -> Iterator[Wait | None]:
    """Import everything. Yield after each slice, and a `Wait` where the import has to wait.

    Adds to the plan's warnings what could not be imported.
    """
    steps = _Steps(broker)
    for number, definition in enumerate(plan, 1):
        while True:
            try:
                steps.carry_out(definition)
            except MessageNotLoaded as busy:        # an object of this name is still being deleted
                yield busy.call
                continue
            except AmqpException as error:
                plan.warnings.append(f"the broker has changed during the import: {error.text}; import the file again")
            break
        if number % SLICE == 0:
            yield None
    broker.parameters.end_import()
    for vhost in {policy.vhost for policy in plan.policies} & broker.vhosts.keys():
        followers = broker.vhosts[vhost].followers
        if followers.has_work:
            yield followers.call


def carry_out_at_once(plan: Plan, broker: Broker) -> None:
    """Import everything before there are clients. Raises CannotWait."""
    for wait in carry_out(plan, broker):
        if wait is not None:
            for vhost in broker.vhosts.values():
                vhost.followers.finish()
            if any(vhost.leaving.has_work for vhost in broker.vhosts.values()):
                raise CannotWait("objects of the store are still being deleted; start again")


class _Steps:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def carry_out(self, definition: AnyDefinition) -> None:
        """Carry out one step. Raises AmqpException, MessageNotLoaded."""
        broker = self._broker
        match definition:
            case UserDefinition():
                broker.users.put(definition)
            case VhostDefinition():
                self._put_vhost(definition)
            case PermissionDefinition(user=user, vhost=vhost):
                if broker.users.named(user).permissions.get(vhost) != definition:
                    broker.users.set_permissions(definition)
            case TopicPermissionDefinition(user=user, vhost=vhost, exchange=exchange):
                if broker.users.named(user).topic_permissions.get((vhost, exchange)) != definition:
                    broker.users.set_topic_permissions(definition)
            case GlobalParameterDefinition(name=name, value=value):
                if broker.parameters.global_value(name) != value:
                    broker.parameters.set_global(definition)
            case ParameterDefinition(vhost=vhost, component=component, name=name, value=value):
                if broker.parameters.value(vhost, component, name) != value:
                    broker.parameters.set(definition)
            case PolicyDefinition(vhost=vhost, is_operator=is_operator):
                followers = broker.vhost(vhost).followers
                if definition not in followers.policies.listed(is_operator=is_operator):
                    followers.set_policy(definition)
            case ExchangeDefinition(vhost=vhost, name=name):
                if name not in broker.vhost(vhost).exchanges:
                    broker.ensure(definition)
            case QueueDefinition(vhost=vhost):
                broker.vhost(vhost).import_queue(definition)
            case BindingDefinition():
                broker.ensure(definition)

    def _put_vhost(self, definition: VhostDefinition) -> None:
        if definition.name in self._broker.vhosts:
            self._broker.replace_vhost(definition)
        else:
            self._broker.add_vhost(definition)
