"""An import that has begun: what is stored of it, so that a start after a crash finishes it.

An import is recorded in several batches, so a crash may leave some of it. The first batch also has all that is going to
be imported, as JSON. Passwords are in it as hashes, as in the users themselves.
"""

from __future__ import annotations

import logging
from typing import get_args

import msgspec

from amqpd.broker.broker import Broker
from amqpd.management.definitions_json.applying import carry_out_at_once
from amqpd.management.definitions_json.plan import AnyDefinition, Plan
from amqpd.wording import counted

log = logging.getLogger("amqpd")

_KINDS: dict[str, type[AnyDefinition]] = {kind.__name__: kind for kind in get_args(AnyDefinition)}


def text_of(plan: Plan) -> str:
    """Return what is stored of an import. Takes about 0.1 s for 10,000 definitions, and may be called in a thread."""
    return msgspec.json.encode([(type(one).__name__, one) for one in plan]).decode()


def plan_of(text: str) -> Plan:
    """Return the import that was stored. Raises ValueError, msgspec.ValidationError, KeyError."""
    plan = Plan()
    for name, values in msgspec.json.decode(text, type=list[tuple[str, msgspec.Raw]]):
        plan.add(msgspec.json.decode(values, type=_KINDS[name]))
    return plan


def finish_import(broker: Broker) -> None:
    """Finish the import during which the last run ended, if there is one. Raises CannotWait."""
    text = broker.parameters.begun_import
    if text is None:
        return
    plan = plan_of(text)
    carry_out_at_once(plan, broker)
    for warning in plan.warnings:
        log.warning("an import of definitions was finished: %s", warning)
    log.info("finished the import of %s, during which the last run ended", counted(plan.count, "definition"))
