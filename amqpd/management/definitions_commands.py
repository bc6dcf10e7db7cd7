"""Commands that export and import definitions: RabbitMQ's definitions.json.

Both may take long for a large broker, which serves its clients meanwhile: what needs no state of the broker is done in
a thread, and an import is carried out in slices. Clients may see that some of it is there and some is not yet; but it
ends in any case: neither a client that disconnects nor a crash leaves half of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import msgspec

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import GlobalParameterDefinition
from amqpd.broker.passwords import PasswordForm
from amqpd.exit_codes import EXIT_DATA
from amqpd.management.definitions_json.applying import carry_out, hash_passwords
from amqpd.management.definitions_json.begun import text_of
from amqpd.management.definitions_json.checking import check
from amqpd.management.definitions_json.exporting import LOADED_HASH, Snapshot
from amqpd.management.refusal import Refusal, vhost_of
from amqpd.management.waiting import until_called

MOST_LISTED = 1_000         # problems or warnings in one answer


class Imported(msgspec.Struct):
    """The answer to an import: how many definitions there were, and what the operator should know."""

    count: int
    warnings: list[str]
    is_unchanged: bool = False


class DefinitionsCommands:
    """The commands on all definitions of one broker. `begin` is called before each slice of an import."""

    def __init__(
        self, broker: Broker, password_form: PasswordForm = PasswordForm(), begin: Callable[[], None] = lambda: None
    ) -> None:
        self._broker = broker
        self._password_form = password_form
        self._begin = begin
        self._importing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Imported]] = set()

    async def export_definitions(self, vhost: str | None = None, names_vhost: bool = False) -> bytes:
        """Return the definitions of the broker, or of one vhost, as JSON.

        In those of one vhost, policies and parameters name it if `names_vhost` is true.
        """
        if vhost is not None:
            vhost_of(self._broker, vhost)
        snapshot = Snapshot(self._broker, vhost, names_vhost=names_vhost)
        return await asyncio.to_thread(lambda: b"".join(snapshot.write()))

    async def import_definitions(
        self, body: bytes, vhost: str | None = None, skip_if_unchanged: bool = False
    ) -> Imported:
        """Import a file, into one vhost if it is named. Raises Refusal with everything that is wrong with the file."""
        if vhost is not None:
            vhost_of(self._broker, vhost)
        task = asyncio.create_task(self._import_alone(body, vhost, skip_if_unchanged=skip_if_unchanged))
        self._tasks.add(task)           # goes on without the client that has asked for it
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _import_alone(self, body: bytes, vhost: str | None, *, skip_if_unchanged: bool) -> Imported:
        async with self._importing:
            return await self._import(body, vhost, skip_if_unchanged=skip_if_unchanged)

    async def _import(self, body: bytes, vhost: str | None, *, skip_if_unchanged: bool) -> Imported:
        broker = self._broker
        hashed = hashlib.sha256(body).hexdigest()
        if skip_if_unchanged and vhost is None and broker.parameters.global_value(LOADED_HASH) == hashed:
            return Imported(0, [], is_unchanged=True)
        plan = await asyncio.to_thread(check, body, broker, vhost)
        if plan.problems:
            unknown = [f"warning: {warning}" for warning in listed(plan.unknown)]
            raise Refusal("\n".join([*unknown, *listed(plan.problems)]), EXIT_DATA)
        await asyncio.to_thread(hash_passwords, plan, broker, self._password_form)
        begun = await asyncio.to_thread(text_of, plan)
        self._begin()
        broker.parameters.begin_import(begun)
        for wait in carry_out(plan, broker):
            self._begin()
            await (asyncio.sleep(0) if wait is None else until_called(wait))
            self._begin()
        if skip_if_unchanged and vhost is None:
            broker.parameters.set_global(GlobalParameterDefinition(LOADED_HASH, hashed))
        return Imported(plan.count, listed(plan.warnings))


def listed(lines: list[str], most: int = MOST_LISTED) -> list[str]:
    """Return the first lines, and how many there are besides."""
    return lines if len(lines) <= most else [*lines[:most], f"… and {len(lines) - most:,} more"]
