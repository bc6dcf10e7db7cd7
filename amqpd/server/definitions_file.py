"""The file of definitions that a start loads, before the declarations of the configuration.

Everything that it changes is in the batch of the start, so that a start that fails has changed nothing. The hash of the
file is stored in the same batch.

RabbitMQ docs/definitions, import at boot time.
"""

from __future__ import annotations

import hashlib
import logging
import os

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import GlobalParameterDefinition
from amqpd.broker.passwords import PasswordForm
from amqpd.config import Config
from amqpd.management.definitions_commands import listed
from amqpd.management.definitions_json.applying import CannotWait, carry_out_at_once, hash_passwords
from amqpd.management.definitions_json.begun import finish_import
from amqpd.management.definitions_json.checking import ONE_VHOST, check
from amqpd.management.definitions_json.exporting import LOADED_HASH
from amqpd.management.definitions_json.parsing import MOST_BYTES
from amqpd.wording import counted

log = logging.getLogger("amqpd")


class NotLoaded(Exception):
    """A file that cannot be loaded. `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_definitions(config: Config, broker: Broker, form: PasswordForm) -> None:
    """Load the file that the configuration names, if there is one and it is new. Raises NotLoaded."""
    path = config.load_definitions
    if not path:
        return
    body = _read(path)
    hashed = hashlib.sha256(body).hexdigest()
    if config.definitions.skip_if_unchanged and broker.parameters.global_value(LOADED_HASH) == hashed:
        log.info("%s is unchanged: its definitions were not loaded again", path)
        return
    plan = check(body, broker)
    if plan.problems:
        for warning in listed(plan.unknown):
            log.warning("%s: %s", path, warning)
        raise NotLoaded(_lines(path, plan.problems))
    hash_passwords(plan, broker, form)
    warnings = [*plan.warnings]
    try:
        carry_out_at_once(plan, broker)
    except CannotWait as error:
        raise NotLoaded([f"{path}: {error}"]) from None
    if refused := plan.warnings[len(warnings):]:
        raise NotLoaded(_lines(path, refused))
    if broker.parameters.global_value(LOADED_HASH) != hashed:
        broker.parameters.set_global(GlobalParameterDefinition(LOADED_HASH, hashed))
    for warning in listed(warnings):
        log.warning("%s: %s", path, warning)
    log.info("loaded %s from %s", counted(plan.count, "definition"), path)


def finish_begun_import(broker: Broker) -> None:
    """Finish an import during which the last run ended, now or, if it has to wait, at the next start."""
    try:
        finish_import(broker)
    except CannotWait as error:
        log.warning("an import of definitions, during which an earlier run ended, is not finished: %s", error)


def try_definitions(config: Config, broker: Broker, *, is_whole: bool) -> tuple[list[str], list[str]]:
    """Return the problems and the warnings of the file, and load it into a broker that is tried out.

    Without `is_whole` the broker lacks what is stored: then references are not checked, and nothing is loaded.
    """
    path = config.load_definitions
    if not path:
        return [], []
    try:
        body = _read(path)
    except NotLoaded as error:
        return error.problems, []
    plan = check(body, broker, may_refer_elsewhere=not is_whole)
    if is_whole and not plan.problems:
        carry_out_at_once(plan, broker)         # passwords are not hashed, since that takes long
    return _lines(path, plan.problems), [f"{path}: {warning}" for warning in listed(plan.warnings)]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES + 1)        # beyond that it is refused
    except OSError as error:
        raise NotLoaded([
            f"{os.path.abspath(path)}: cannot be read: {error.strerror}; name a file of definitions in "
            "load_definitions"]) from None


def _lines(path: str, problems: list[str]) -> list[str]:
    if problems == [f"$: {ONE_VHOST}"]:
        return [f"{path}: $: {ONE_VHOST}; load_definitions takes an export of the whole broker"]
    return [f"{path}: {problem}; change the file" for problem in listed(problems)]
