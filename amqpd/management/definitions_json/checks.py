"""What the checks of one file share: the plan, what has been found wrong, and which names there are.

The broker is only read, name by name, so that the checks may run in a thread beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.management.definitions_json.entries import Entry, Report
from amqpd.management.definitions_json.kept import KEPT, keep
from amqpd.management.definitions_json.plan import Plan


class Checks:
    """The state of the check of a file. With `only_vhost`, everything is for this vhost.

    `is_export` says that a broker has written the file: then bindings may lead to what brokers do not export. With
    `may_refer_elsewhere`, names that are not known are not told.
    """

    def __init__(
        self, broker: Broker, only_vhost: str | None, *, is_export: bool, may_refer_elsewhere: bool = False
    ) -> None:
        self.broker = broker
        self.only_vhost = only_vhost
        self.is_export = is_export
        self.may_refer_elsewhere = may_refer_elsewhere
        self.report = Report()
        self.plan = Plan(
            problems=self.report.problems, warnings=self.report.warnings, unknown=self.report.unknown)
        self.default_types: dict[str, str] = {}         # default queue types of the file's vhosts
        self._first: dict[tuple[str, ...], str] = {}    # the path of each object, to find those that are there twice
        self._kept: set[tuple[str, str, str]] = set()
        self._faulty: set[tuple[str, str, str]] = set()

    # Objects of the file, by kind, vhost and name; the vhost of users and vhosts is ""

    def is_first(self, entry: Entry, *identity: str) -> bool:
        """Refuse an object that is there twice; return whether it has no problem."""
        first = self._first.setdefault(identity, entry.path)
        if first is not entry.path:
            entry.refuse(None, f"is there twice: {first}")
        return entry.is_valid

    def note_faulty(self, kind: str, vhost: str, name: str) -> None:
        """Note an object whose problems have been told: nothing is told of what refers to it."""
        self._faulty.add((kind, vhost, name))

    def is_faulty(self, kind: str, vhost: str, name: str) -> bool:
        """Return whether problems of this object have been told."""
        return (kind, vhost, name) in self._faulty

    def keep(self, entry: Entry, kind: str, vhost: str, reason: str) -> None:
        """Keep an object that amqpd does not have, for the next export."""
        section = f"{kind}s"
        self.plan.add_parameter(keep(section, vhost, entry.values))
        entry.warn(None, f"{reason}; kept for the next export")
        if kind != "binding":
            self._kept.add((kind, vhost, entry.values["name"]))

    def is_kept(self, kind: str, vhost: str, name: str) -> bool:
        """Return whether a queue or exchange is kept without existing in the broker."""
        if (kind, vhost, name) in self._kept:
            return True
        return self.broker.parameters.value(vhost, KEPT[f"{kind}s"], name) is not None and (
            name not in self.objects(kind, vhost)) and (vhost, name) not in self._planned(kind)

    # Names

    def vhost_of(self, entry: Entry) -> str:
        """Return the vhost of an object, which exists or is in the file."""
        if self.only_vhost is not None:
            return self.only_vhost
        name = entry.name("vhost")
        is_there = name in self.plan.vhosts or name in self.broker.vhosts or self.may_refer_elsewhere
        if entry.is_valid and not is_there and not self.is_faulty("vhost", "", name):
            entry.refuse("vhost", f"there is no vhost '{name}', neither in the file nor in the broker")
        return name

    def user_of(self, entry: Entry) -> str:
        """Return the user of a permission, who exists or is in the file."""
        name = entry.name("user")
        is_there = name in self.plan.users or name in self.broker.users or self.may_refer_elsewhere
        if entry.is_valid and not is_there and not self.is_faulty("user", "", name):
            entry.refuse("user", f"there is no user '{name}', neither in the file nor in the broker")
        return name

    def exchanges(self, vhost: str) -> Mapping[str, Exchange]:
        """Return the exchanges that a vhost has."""
        found = self.broker.vhosts.get(vhost)
        return {} if found is None else found.exchanges

    def queues(self, vhost: str) -> Mapping[str, Queue]:
        """Return the queues that a vhost has."""
        found = self.broker.vhosts.get(vhost)
        return {} if found is None else found.queues

    def objects(self, kind: str, vhost: str) -> Mapping[str, Any]:
        """Return the queues or the exchanges that a vhost has."""
        return self.queues(vhost) if kind == "queue" else self.exchanges(vhost)

    def _planned(self, kind: str) -> Mapping[tuple[str, str], Any]:
        return self.plan.queues if kind == "queue" else self.plan.exchanges
