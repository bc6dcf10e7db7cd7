"""The commands of amqpctl on a broker with real sessions, for tests of what commands do to clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from amqpd.broker.queue.queue import Queue
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.management.node_commands import MessageLimits, Node
from tests.support.talk import Stage


class NoAlarms:
    """Alarms that no test here looks at."""

    def statistics(self) -> dict[str, Any]:
        return {}


def bare_node() -> Node:
    """Return a node for tests that need only that there is one."""
    return Node(rabbitmq_version="", data_dir=None, durability="none", alarms=NoAlarms(), listeners=[], stop=list)


class SessionDesk:
    """The commands on the broker of a stage, which goes on for as long as a command waits."""

    def __init__(self, stage: Stage | None = None, limits: MessageLimits = MessageLimits()) -> None:
        self.stage = stage or Stage()
        self.broker = self.stage.broker
        self.turns = 0
        self.node = Node(
            rabbitmq_version="3.10.8", data_dir=None, durability="none", alarms=NoAlarms(),
            listeners=[], stop=lambda: None, begin=self._begin, wait_committed=self._wait_committed,
            message_limits=limits)
        self.control = Control(Commands(self.broker, self.node), self._wait_committed)

    def _begin(self) -> None:
        self.turns += 1

    async def _wait_committed(self) -> None:
        self.stage.end_turn()

    def at_turn(self, number: int, act: Callable[[], object]) -> None:
        """Have something done at the begin of this turn of a command, counted from 1."""
        def begin() -> None:
            self._begin()
            if self.turns == number:
                act()

        self.node.begin = begin

    def answer(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        return asyncio.run(self._answer(json.dumps({"command": command, "arguments": arguments}).encode()))

    async def _answer(self, request: bytes) -> dict[str, Any]:
        asked = asyncio.ensure_future(self.control.answer(request))
        for _ in range(100_000):
            await asyncio.sleep(0)
            if asked.done():
                break
            self.stage.page_store.serve()
        self.stage.end_turn()
        return json.loads(json.dumps(await asked))

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the result of a command that is carried out."""
        answer = self.answer(command, vhost="/", **arguments)
        assert answer["ok"], answer
        return answer["result"]

    def refusal(self, command: str, **arguments: Any) -> tuple[str, int]:
        """Return text and exit code of a command that is refused."""
        answer = self.answer(command, **{"vhost": "/", **arguments})
        assert not answer["ok"], answer
        return answer["error"], answer["exit_code"]

    def queue(self, name: str) -> Queue:
        """Return a queue of the broker."""
        return self.broker.vhosts["/"].queues[name]
