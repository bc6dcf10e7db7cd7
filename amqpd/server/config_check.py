"""The checks of `amqpd check-config`: find everything that would stop a start, without starting.

The store in the data directory is read but not changed. If it cannot be read, a remark says so, and declarations may
refer to objects that are not known here.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from amqpd.broker.definitions import Definition
from amqpd.config import Config, Tls
from amqpd.server import exposure
from amqpd.server.addresses import describe_failure, unresolved
from amqpd.server.certificates import CertificateError, read, warnings
from amqpd.server.declarations import Trial
from amqpd.store.errors import StoreError, StoreLocked
from amqpd.store.tools.databases import definitions_at, examine
from amqpd.store.tools.quick import QuickLook, quick_look
from amqpd.store.tools.stopped import stored_definitions


class Findings(NamedTuple):
    """The result, one line for each finding: `problems` would stop a start, `remarks` would not."""

    problems: list[str]
    remarks: list[str]


def check_config(
    config: Config, listener_places: Sequence[str], faulty: Collection[str] = (),
    unread: Collection[str] = (),
) -> Findings:
    """Return what a start with this configuration would find: host names, certificates, store, declarations.

    `listener_places` tells where each of `Config.all_listeners` stands. `faulty` has the `where` of declarations
    whose problems are known already: nothing more is told about them. `unread` has the first keys of values that the
    configuration lacks, since they cannot be used: nothing is told that may be wrong for that reason.
    """
    problems, remarks = list[str](), list[str]()
    for where, listener in zip(listener_places, config.all_listeners):
        if error := unresolved(listener.host, listener.port):
            problems.append(f"{where}: {describe_failure(str(listener), listener.port, error)}")
    if config.has_tls and _names_certificates(config.tls) and "tls" not in unread:
        try:
            remarks += warnings(read(config.tls).certificates, time.time())
        except CertificateError as error:
            problems += error.problems
    stored: list[Definition] | None = []
    try:
        stored = None if "data_dir" in unread else _read_store(config)
    except StoreLocked:
        stored = None
        remarks.append(f"a broker runs in {config.data_dir}: its store was not checked")
    except (StoreError, ValueError) as error:
        stored = None
        where = "" if config.store.reveal() else f" in {config.data_dir}"
        remarks.append(f"the store{where} was not checked: {error}")
    trial = Trial(config, stored, faulty, is_partial=bool(unread))
    trial.run()
    if trial.knows_users:
        fault = exposure.refusal(
            config, lambda: exposure.has_guest_alone(trial.users), is_first_start=not stored)
        if fault:
            problems.append(fault)
        else:
            remarks += exposure.warnings(config, trial.users)
    return Findings(problems + trial.problems, remarks + trial.warnings)


def _names_certificates(tls: Tls) -> bool:
    """Return whether there are files to read; if a listener lacks one, `config` has told it."""
    has_ca = bool(tls.ca) or tls.client_certificates == "none"
    return bool(tls.certificate and tls.key and has_ca)


def _read_store(config: Config) -> list[Definition]:
    """Return the definitions of the store, an empty list if there is no store. Raises StoreError, ValueError."""
    if config.memory:
        return []
    url = config.store.reveal()
    return definitions_at(url) if url else stored_definitions(config.data_dir)


def look_at_database(config: Config) -> Iterator[tuple[str, str, bool]]:
    """Yield what is found of the database that has the store: the text, the remedy, and whether it is a problem.

    Raises StoreError.
    """
    yield from examine(config.store.reveal())


def look_at_store(config: Config, budget_s: float) -> QuickLook | None:
    """Check the pages of the store for so many seconds at most; None if there is no store.

    Raises StoreLocked if a broker has it open; StoreError if it cannot be read.
    """
    return quick_look(config.data_dir, budget_s)
