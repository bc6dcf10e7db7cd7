"""Open the store, restore it, and declare the configuration, before clients are served.

Every error of the data directory or the declarations is found here and becomes a `StartError`: one line for the user,
and an exit code.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from amqpd.broker.actor import Actor
from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.queue.segment import Budget
from amqpd.config import Config
from amqpd.exit_codes import EXIT_CONFIG, EXIT_IO, EXIT_TEMPORARY
from amqpd.properties import read_own_properties
from amqpd.management.audited import audited
from amqpd.server.declarations import Undeclared, declare, vhost_defaults
from amqpd.server.definitions_file import NotLoaded
from amqpd.server.page_store import DiskPageStore
from amqpd.server.wall_clock import read_clocks
from amqpd.store.ballast import Ballast
from amqpd.store.errors import StoreError, StoreLocked, from_finding
from amqpd.store.journal import Journal, MemoryJournal
from amqpd.store.port import Membership, Recovered, Store
from amqpd.store.restoring import restore
from amqpd.store.spill import Spill
from amqpd.store.sqlite.store import Store as SqliteStore
from amqpd.wording import counted

if TYPE_CHECKING:
    from amqpd.store.postgres.store import Store as PostgresStore

log = logging.getLogger("amqpd")


class StartError(Exception):
    """The broker cannot start. Has one line with the problem, its place and the remedy, and the exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Storage(NamedTuple):
    """The store of a broker, the journal that feeds it, and the reader of paged-out messages.

    `found_watermarks` has what the last run wrote at its clean stop: by queue number, up to which message number any
    may have been delivered. None if it did not stop cleanly, or if the store is a copy.
    """

    store: Store
    journal: Journal
    page_store: DiskPageStore
    found_watermarks: Mapping[int, int] | None

    def close_unused(self) -> None:
        """Close the store as it was found, since nothing has been written; do nothing if it was not closed cleanly.

        The journal's batch is dropped: the next start finds the same. Raises StoreError.
        """
        if self.found_watermarks is not None:
            self.page_store.end()
            self.store.close({}, self.found_watermarks)


def is_first_start(config: Config) -> bool:
    """Return whether there is no store yet, as far as this user can see. Raises StartError."""
    if config.memory or not config.store.reveal():
        return config.memory or not SqliteStore.exists(config.data_dir)
    try:
        return not _postgres_store().exists(config.store.reveal())
    except StoreError as error:
        raise StartError(str(error), EXIT_IO) from None


def membership_of(config: Config) -> Membership:
    """Return what tells this node of the others with which it shares a store. Raises StartError."""
    _postgres_store()
    from amqpd.store.postgres.membership import Membership as PostgresMembership

    try:
        return PostgresMembership(config.store.reveal(), node_name_of(config), now=int(time.time()))
    except StoreError as error:
        raise StartError(str(error), EXIT_IO) from None


def node_name_of(config: Config) -> str:
    """Return the name of this node for others."""
    return config.node_name or f"amqpd@{socket.gethostname()}"


def open_broker(
    config: Config, ballast: Ballast, on_failure: Callable[[StoreError], None], reached_at: str = ""
) -> tuple[Broker, Storage | None]:
    """Return the broker as it was when it last stopped, and its storage; None without a store. Raises StartError.

    `on_failure` is called if the store fails later. Other nodes reach this one at `reached_at`.
    """
    clock = Clock(*read_clocks())
    if config.memory:
        return Broker(
            MemoryJournal(), clock=clock, binding_limit=config.limits.bindings_per_queue,
            queue_limit=config.limits.max_queues, vhost_defaults=vhost_defaults(config)), None
    if config.durability == "process" and not config.store.reveal():
        log.warning('durability = "process": confirmed messages survive the end of the process, but not a loss of '
                    "power")
    began_s = time.monotonic()
    store, recovered = _open_store(config, ballast, reached_at)
    journal = Journal()
    journal.bodies.release = store.release_body
    page_store = DiskPageStore(
        store, Spill(Path(config.data_dir), read_own_properties), Budget(config.limits.message_memory), on_failure)
    broker = Broker(
        journal, first_number=store.first_number, clock=clock, page_store=page_store,
        binding_limit=config.limits.bindings_per_queue, queue_limit=config.limits.max_queues,
        vhost_defaults=vhost_defaults(config))
    for finding in restore(broker, recovered.definitions):
        store.abandon()
        raise StartError(str(from_finding(str(finding), store.info().path)), EXIT_IO)
    clock.set_stored(recovered.clock_behind_ms)
    broker.restore_messages(recovered.messages, recovered.redelivered, recovered.redelivered_to, recovered.deliveries)
    _log_recovered(recovered, config.data_dir, time.monotonic() - began_s)
    if not ballast.ensure() and not ballast.is_spent:
        log.warning("no ballast: less than twice limits.ballast_size is free in %s", config.data_dir)
    was_closed = recovered.was_clean and not recovered.is_copy
    return broker, Storage(store, journal, page_store, recovered.redelivered_to if was_closed else None)


def _open_store(config: Config, ballast: Ballast, reached_at: str) -> tuple[Store, Recovered]:
    try:
        store: Store = ballast.with_room(lambda: _open_engine(config, reached_at), is_start=True)
        try:
            recovered = ballast.with_room(lambda: store.load(read_own_properties), is_start=True)
        except StoreError:
            store.abandon()
            raise
    except StoreLocked as error:
        raise StartError(str(error), EXIT_TEMPORARY) from None
    except StoreError as error:
        raise StartError(str(error), EXIT_IO) from None
    return store, recovered


def _open_engine(config: Config, reached_at: str) -> Store:
    now, url = int(time.time()), config.store.reveal()
    if not url:
        return SqliteStore.open(config.data_dir, durability=config.durability, now=now)
    if SqliteStore.exists(config.data_dir):
        log.warning("%s has a store of its own, which is not used: all is in the database", config.data_dir)
    return _postgres_store().open(
        url, directory=config.data_dir, node=node_name_of(config), reached_at=reached_at, now=now,
        is_patient=not reached_at)      # in a cluster, a node that was not quick enough stands by at once


def _postgres_store() -> type[PostgresStore]:
    """Return the store in PostgreSQL, whose driver is an extra. Raises StartError."""
    try:
        from amqpd.store.postgres.store import Store as found
    except ImportError as error:
        text = f"store: PostgreSQL needs psycopg ({error}): pip install 'amqpd[postgres]'"
        raise StartError(text, EXIT_CONFIG) from None
    return found


def _log_recovered(recovered: Recovered, data_dir: Path, took_s: float) -> None:
    """Log what was restored, and whether the last run was stopped cleanly."""
    queues = sum(isinstance(definition, QueueDefinition) for definition in recovered.definitions)
    messages = sum(len(stored.numbers) for stored in recovered.messages.values())
    log.info("data directory: %s", data_dir.absolute())
    log.info("%s %s and %s in %.1f s", _how_it_ended(recovered),
             counted(queues, "durable queue"), counted(messages, "message"), took_s)


def _how_it_ended(recovered: Recovered) -> str:
    if recovered.is_copy:
        return "this is a copy made by 'amqpd store', in which every message counts as delivered before: loaded"
    return "loaded" if recovered.was_clean else "the last run was not stopped cleanly: recovered"


def declare_configuration(config: Config, broker: Broker) -> None:
    """Load definitions; declare vhosts, users, policies, exchanges, queues and bindings. Raises StartError."""
    try:
        with audited(broker, Actor("", "", "config")):
            declare(config, broker)
    except (Undeclared, NotLoaded) as error:
        raise StartError(str(error), EXIT_CONFIG) from None
