"""Requests by chance to the management API, 20,000 in a proof: no error inside, no traceback, answers within bounds.

They go through the ASGI application of a broker in memory, which begins anew after each part.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any

import pytest

from amqpd.broker.access import User
from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import PermissionDefinition, QueueDefinition, UserDefinition, VhostDefinition
from amqpd.config import Config, Limits, Management
from amqpd.errors import AmqpException
from amqpd.management.http.application import Application
from amqpd.management.http.context import Context
from amqpd.management.http.sessions import Sessions
from amqpd.management.http.table import all_routes
from amqpd.management.http.turns import Turns
from amqpd.management.statistics import Statistics
from amqpd.server.direct_client import DirectClients
from amqpd.server.measuring import measure
from amqpd.server.monotonic import now_ms
from amqpd.server.runtime import Runtime
from tests.fuzz.http_requests import RequestMaker, Sent
from tests.support.api import FREE
from tests.support.sizes import sized

PARTS = sized(4, 20)
SEED = sized(0, 0, "SEED")
REQUESTS = sized(2_000, 20_000, "REQUESTS")
MOST_ANSWERED = 4 << 20
LONGEST_S = 10.0
# They end the process, or stop its service.
NOT_ASKED = frozenset({"stop", "stop_app", "start_app", "reset"})

USERS = {"guest": "administrator", "reader": "management", "policy": "policymaker"}
QUEUES: dict[str, dict[str, Any]] = {
    "orders": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}, "dead": {},
    "full": {"x-max-length": 1, "x-overflow": "reject-publish"}}


def furnish(broker: Broker) -> None:
    """Bring back what earlier requests have deleted or changed: users, the vhost `/` and its queues."""
    if "/" not in broker.vhosts:
        broker.add_vhost(VhostDefinition("/"))
    home = broker.vhosts["/"]
    for name, tag in USERS.items():
        if name not in broker.users:
            broker.users.add(UserDefinition(name))
        if broker.users[name].definition.tags != (tag,):
            broker.users.set_tags(name, (tag,))
        if not broker.users[name].may_enter("/"):
            rights = (".*",) * 3 if name == "guest" else ("^n", "^o", "^(o|amq)")
            broker.users.set_permissions(PermissionDefinition(name, "/", *rights))
    for queue, arguments in QUEUES.items():
        if queue not in home.queues and queue not in home.leaving.queues:
            definition = QueueDefinition(0, "/", queue, durable=True, arguments=arguments)
            with contextlib.suppress(AmqpException):
                home.declare_queue(OPERATOR, definition, None)


class Stage(Runtime):
    """A broker whose management API is asked without a socket. Passwords are not checked."""

    application: Application
    broker: Broker
    gone = False        # whether a user is deleted right after the login

    async def _open_http(  # type: ignore[override]
        self, undo: Any, bound: Any, broker: Any, node: Any, commands: Any, control: Any, logins: Any, listeners: Any,
        alarms: Any
    ) -> Statistics:
        for name in NOT_ASKED:
            commands.lookups.pop(name, None)
            commands.changes.pop(name, None)
        self.broker = broker
        self.commands = sorted([*commands.lookups, *commands.changes, *commands.streams, "none"])

        async def login(user: str, password: str, address: str, is_tls: bool) -> User | None:
            furnish(broker)
            found = broker.users[user] if user in USERS else None
            if self.gone:
                broker.users.delete(user)
            return found

        clients = DirectClients(broker, listeners.turn, listeners.settings, listeners.take_number, bool)
        statistics = Statistics(
            broker, listeners.turn.now_ms, partial(measure, alarms, broker, self.measures), self.measures)
        self.application = Application(Context(
            broker=broker, node=node, commands=commands, login=login, connect=clients.connect, command=control.answer,
            statistics=statistics, sessions=Sessions(broker, now_ms), turns=Turns()), all_routes())
        return statistics


async def ask(application: Application, sent: Sent) -> tuple[int, int]:
    """Return the status of an answer, and its size; a stream ends as soon as it has begun."""
    status, size, is_asked, has_begun = 0, 0, False, asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal is_asked
        if not is_asked:
            is_asked = True
            return {"type": "http.request", "body": sent.body, "more_body": False}
        await has_begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status, size
        status = message.get("status", status)
        size += len(message.get("body", b""))
        if message["type"] == "http.response.body":
            has_begun.set()

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": sent.method,
        "scheme": "http", "path": sent.path, "raw_path": sent.path.encode("latin-1"), "root_path": "",
        "query_string": sent.query.encode(),
        "headers": sent.headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 15672), "state": {}}
    async with asyncio.timeout(LONGEST_S):
        await application(scope, receive, send)
    return status, size


async def play(seed: int, count: int) -> tuple[list[str], dict[int, int]]:
    """Send requests, and return what was wrong, and how often each status was answered."""
    faults: list[str] = []
    statuses: dict[int, int] = {}
    config = Config(memory=True, listeners=(FREE,), limits=Limits(login_failure_delay_s=0.0),
                    management=Management(listeners=(FREE,)))
    async with Stage(config) as stage:
        maker = RequestMaker(seed, all_routes().all, stage.commands)
        for number in range(count):
            sent = maker.make()
            try:
                status, size = await ask(stage.application, sent)
            except Exception as error:
                faults.append(f"seed {seed}, request {number}: {error!r}: {sent}")
                continue
            statuses[status] = statuses.get(status, 0) + 1
            if status in (0, 500) or size > MOST_ANSWERED:
                faults.append(f"seed {seed}, request {number}: status {status}, {size} bytes: {sent}")
    return faults, statuses


@pytest.mark.proof
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(PARTS))
def test_no_request_does_harm(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    level = root.level
    for name in ("amqpd", "uvicorn", "asyncio"):
        caplog.set_level(logging.WARNING, name)
    with contextlib.ExitStack() as undo:
        undo.callback(lambda: root.setLevel(level))
        faults, statuses = asyncio.run(play(SEED + seed, REQUESTS // PARTS))
    print(f"seed {SEED + seed}: {dict(sorted(statuses.items()))}")
    traces = [record.getMessage() for record in caplog.records if record.exc_info]
    assert not faults and not traces, "\n".join([*faults, *traces])
    assert {200, 204, 400, 401, 404, 405} <= statuses.keys(), statuses


def test_a_user_who_is_deleted_while_the_body_arrives_may_do_nothing() -> None:
    login = [(b"authorization", b"Basic Z3Vlc3Q6cHc="), (b"content-length", b"0")]
    sent = Sent("PUT", "/api/vhosts/more", "", login, b"")

    async def run() -> tuple[int, bool]:
        config = Config(memory=True, listeners=(FREE,), management=Management(listeners=(FREE,)))
        async with Stage(config) as stage:
            stage.gone = True
            return (await ask(stage.application, sent))[0], "more" in stage.broker.vhosts

    assert asyncio.run(run()) == (401, False)
