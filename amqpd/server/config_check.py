"""All that would stop a start with a configuration, found without starting: for `amqpd check-config`.

The store in the data directory is read, and left as it is. Where that cannot be done, a remark says so, and what a
declaration refers to may be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from amqpd.broker.definitions import Definition
from amqpd.config import Config
from amqpd.server.addresses import describe_failure, unresolved
from amqpd.server.declarations import Trial
from amqpd.store.errors import StoreError, StoreLocked
from amqpd.store.sqlite.files import DATABASE, is_there
from amqpd.store.sqlite.restoring import read_definitions
from amqpd.store.tools.stopped import held, reading

_NO_TABLE = ".arguments are no field table"


class Findings(NamedTuple):
    """A line each: `problems` would stop a start, `remarks` not."""

    problems: list[str]
    remarks: list[str]


def check_config(config: Config, listener_places: Sequence[str], known: Sequence[str] = ()) -> Findings:
    """Return what a start with this configuration would meet with, after the problems that are known already."""
    problems, remarks = [*known], list[str]()
    for where, listener in zip(listener_places, config.listeners):
        if error := unresolved(listener.host, listener.port):
            problems.append(f"{where}: {describe_failure(str(listener), listener.port, error)}")
    stored: list[Definition] | None = []
    try:
        stored = _read_store(config)
    except StoreLocked:
        stored = None
        remarks.append(f"a broker runs in {config.data_dir}: its store was not looked at")
    except (StoreError, ValueError) as error:
        stored = None
        remarks.append(f"the store in {config.data_dir} was not looked at: {error}")
    if any(_NO_TABLE in problem for problem in known):      # no broker can even be asked about such arguments
        return Findings(problems, remarks)
    trial = Trial(config, stored)
    trial.run()
    more = [problem for problem in trial.problems if not any(text.startswith(_place_of(problem)) for text in known)]
    return Findings(problems + more, remarks + trial.warnings)


def _place_of(problem: str) -> str:
    """Return where a declaration stands: the file with the line, and the key path."""
    return ": ".join(problem.split(": ")[:2])


def _read_store(config: Config) -> list[Definition]:
    """Return the definitions of the store, none if there is no store. Raises StoreError, ValueError."""
    if config.memory or not is_there(config.data_dir) or not is_there(config.data_dir / DATABASE):
        return []
    with held(config.data_dir) as path, reading(path) as (connection, _):
        return read_definitions(connection)
