"""Check a definitions file against a broker: everything that is wrong with it at once, or a plan for its import.

Nothing is changed here, so that a file with a problem changes nothing. The broker is only read, name by name, so that
this may run in a thread beside it; what changes meanwhile is noticed when the plan is carried out.

Where RabbitMQ leaves something out in silence, a warning tells: names that begin with `amq.`, and bindings to exclusive
queues and internal exchanges, which its exports have without these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.management.definitions_json.access_checks import AccessChecks
from amqpd.management.definitions_json.checks import Checks
from amqpd.management.definitions_json.entries import Entry
from amqpd.management.definitions_json.exporting import OF_ONE_VHOST
from amqpd.management.definitions_json.parsing import NotDefinitions, parse, path_of
from amqpd.management.definitions_json.plan import Plan
from amqpd.management.definitions_json.topology_checks import TopologyChecks

ONE_VHOST = "has the definitions of one vhost: import it with 'amqpctl -p VHOST import_definitions'"

_OF_VHOST = ("parameters", "policies", "exchanges", "queues", "bindings")
_ABOUT = (
    "rabbit_version", "rabbitmq_version", "product_name", "product_version", "rabbitmq_definition_format",
    "original_cluster_name", "original_vhost_name", "explanation")
_ABOUT_VHOST = ("metadata", "description", "tags", "limits", "default_queue_type")


def check(
    body: bytes, broker: Broker, vhost: str | None = None, *, may_refer_elsewhere: bool = False
) -> Plan:
    """Return the plan for the import of a file: of everything, or into one vhost, which exists.

    Into one vhost, the vhosts that the file names do not count, and its users and permissions are left out. With
    `may_refer_elsewhere` the file may name what is neither in it nor in the broker; the plan cannot be carried out.
    """
    try:
        found = parse(body)
    except NotDefinitions as error:
        return Plan(problems=error.problems)
    checks = Checks(
        broker, vhost, is_export="rabbitmq_version" in found, may_refer_elsewhere=may_refer_elsewhere)
    if vhost is None and found.get("rabbitmq_definition_format") == OF_ONE_VHOST:
        checks.report.refuse("$", ONE_VHOST)
        return checks.plan
    _check_all(found, checks)
    return checks.plan


def _check_all(found: dict[str, Any], checks: Checks) -> None:
    """Check all objects, in an order in which names are known before they are used."""
    access, topology = AccessChecks(checks), TopologyChecks(checks)
    sections: dict[str, Callable[[Entry], None]] = {
        "vhosts": access.check_vhost,
        "users": access.check_user,
        "permissions": access.check_permission,
        "topic_permissions": access.check_topic_permission,
        "parameters": access.check_parameter,
        "global_parameters": access.check_global_parameter,
        "policies": access.check_policy,
        "exchanges": topology.check_exchange,
        "queues": topology.check_queue,
        "bindings": topology.check_binding,
    }
    about_vhost = _ABOUT_VHOST if checks.only_vhost is not None else ()
    for key in found:
        if key not in (*sections, *_ABOUT, *about_vhost):
            checks.report.warn_of_unknown(path_of("$", key), key, sections)
    if checks.only_vhost is not None:
        _check_only_vhost(found, access, checks, checks.only_vhost)
    for section, check_entry in sections.items():
        if checks.only_vhost is None or section in _OF_VHOST:
            _check_section(found, section, check_entry, checks)
        elif found.get(section):
            checks.report.warn(path_of("$", section), "left out: only one vhost is imported")
    topology.check_limits()


def _check_only_vhost(found: dict[str, Any], access: AccessChecks, checks: Checks, name: str) -> None:
    """Take over what a file of one vhost says of the vhost itself."""
    about = {key: found[key] for key in _ABOUT_VHOST if key in found}
    if about:
        access.check_vhost(Entry({"name": name, **about}, "$", checks.report))


def _check_section(
    found: dict[str, Any], section: str, check_entry: Callable[[Entry], None], checks: Checks
) -> None:
    path, entries = path_of("$", section), found.get(section)
    if entries is None:
        return
    if not isinstance(entries, list):
        checks.report.refuse(path, "has to be a list")
        return
    for index, values in enumerate(entries):
        if isinstance(values, dict):
            check_entry(Entry(values, path_of(path, index), checks.report))
        else:
            checks.report.refuse(path_of(path, index), "has to be an object")
