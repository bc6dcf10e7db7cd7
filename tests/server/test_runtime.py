"""Whole brokers in the event loop of the test: several at a time, what they leave, and a store that fails."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pamqp.base import Frame
from pamqp.commands import Basic, Confirm, Queue

from amqpd.broker.measures import Measures
from amqpd.broker.step_job import StepJob
from amqpd.config import Config, Limits, Listener, Management, QueueDeclaration
from amqpd.ctl.client import ask
from amqpd.identity import CONTROL_SOCKET
from amqpd.management.statistics import Statistics
from amqpd.program import Failure
from amqpd.server import live_limits
from amqpd.server.committer import Committer
from amqpd.server.login_key import LOGIN_KEY
from amqpd.server.loop import LoopTurn
from amqpd.server.resources import available_bytes
from amqpd.server.runtime import Runtime
from amqpd.server.session_settings import session_settings
from amqpd.server.startup import StartError
from amqpd.server.store_thread import StoreThread
from amqpd.store.errors import StoreError
from amqpd.store.sqlite.store import Store
from tests.crash.crash_client import Client, Refused, pack_content
from tests.support.api import Api, Reply

PERSISTENT = Basic.Properties(delivery_mode=2)
NO_BALLAST = Limits(ballast_size=0)


def config(data_dir: Path) -> Config:
    return Config(data_dir=data_dir, listeners=(Listener("127.0.0.1:0"),), limits=NO_BALLAST)


def publish(port: int, text: bytes) -> None:
    """Have one persistent message confirmed in the queue `orders`, and keep it there."""
    with Client(port) as client:
        client.call(Queue.Declare(0, "orders", durable=True))
        client.call(Confirm.Select())
        client.publish("", "orders", pack_content(PERSISTENT, text)[0])
        confirmed = client.take(10.0)
        assert confirmed is not None and isinstance(confirmed.method, Basic.Ack)


def bodies(port: int) -> list[bytes]:
    with Client(port) as client:
        found = []
        while (arrived := client.get("orders")) is not None:
            found.append(arrived.body)
        return found


def state_of_the_process() -> dict[str, Any]:
    """Return the state of the process that a broker must not change."""
    return {
        "descriptors": len(os.listdir("/dev/fd")),
        "threads": sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")),
        "tasks": len(asyncio.all_tasks()),
        "signals": [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "switch interval": sys.getswitchinterval(),
        "collector": (gc.get_threshold(), gc.isenabled()),
    }


def test_three_brokers_in_one_process_keep_apart_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by gc.get_freeze_count(): a collection of Python 3.12 sets immortal objects aside by itself.
    frozen: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: frozen.append("unfreeze"))

    async def main() -> None:
        await asyncio.to_thread(int)        # the pool of threads is the loop's, and stays
        before = state_of_the_process()
        for _ in range(2):                  # a stop and a start of each
            async with AsyncExitStack() as running:
                brokers = [await running.enter_async_context(Runtime(config(tmp_path / name))) for name in "abc"]
                ports = [broker.addresses[0][1] for broker in brokers]
                assert len(set(ports)) == 3
                for name, port in zip("abc", ports):
                    await asyncio.to_thread(publish, port, name.encode())
            assert state_of_the_process() == before
        for name in "abc":
            async with Runtime(config(tmp_path / name)) as broker:
                assert await asyncio.to_thread(bodies, broker.addresses[0][1]) == 2 * [name.encode()]

    asyncio.run(main())
    assert not frozen


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        before = state_of_the_process()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listener = Listener(f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(StartError, match="in use"):
                await Runtime(Config(data_dir=tmp_path / "a", listeners=(listener,))).__aenter__()
        async with Runtime(config(tmp_path / "b")):
            with pytest.raises(StartError, match="is held by a running broker"):
                await Runtime(config(tmp_path / "b")).__aenter__()
        assert state_of_the_process() == before
        assert not (tmp_path / "a").exists()

    asyncio.run(main())


def test_a_store_that_fails_is_told_to_clients_and_owner_and_the_next_start_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def publish_in_vain(port: int) -> None:
        with Client(port) as client:
            client.call(Confirm.Select())
            client.publish("", "orders", pack_content(PERSISTENT, b"lost")[0])
            try:
                client.take(10.0)
            except Refused as refused:
                heard.append(str(refused))

    def fail(self: Store, batch: object) -> None:
        raise StoreError("the disk is gone")

    async def main() -> None:
        failures: list[StoreError] = []
        with pytest.raises(StoreError, match="the disk is gone"):
            async with Runtime(config(tmp_path / "a"), failures.append) as broker:
                port = broker.addresses[0][1]
                await asyncio.to_thread(publish, port, b"kept")
                with monkeypatch.context() as patched:
                    patched.setattr(Store, "commit", fail)
                    await asyncio.to_thread(publish_in_vain, port)
                    await broker.wait_until_stopping()
        assert [str(error) for error in failures] == ["the disk is gone"]
        assert len(heard) == 1 and "541" in heard[0]
        async with Runtime(config(tmp_path / "a")) as broker:
            assert await asyncio.to_thread(bodies, broker.addresses[0][1]) == [b"kept"]

    asyncio.run(main())


def test_what_is_unacked_at_a_stop_was_delivered_before_however_long_its_connection_takes_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def consume(port: int) -> Client:
        client = Client(port)
        for _ in range(3):
            client.call(Queue.Declare(0, "orders", durable=True))
            client.publish("", "orders", pack_content(PERSISTENT, b"body")[0])
        client.call(Basic.Consume(0, "orders", "c"))
        for _ in range(3):
            assert client.take(10.0) is not None
        return client

    def redelivered(port: int) -> list[bool]:
        with Client(port) as client:
            return [client.get("orders").method.redelivered for _ in range(3)]      # type: ignore[union-attr]

    async def main() -> None:
        async with Runtime(config(tmp_path / "a"), close_ok_wait_s=0.2) as broker:
            client = await asyncio.to_thread(consume, broker.addresses[0][1])
            monkeypatch.setattr(StepJob, "work", lambda job: job._do_next() or job.end())   # one act at a time,
            monkeypatch.setattr(LoopTurn, "_work", lambda self: None)   # and turns that never come to the others
        client.drop()
        monkeypatch.undo()
        async with Runtime(config(tmp_path / "a")) as broker:
            assert await asyncio.to_thread(redelivered, broker.addresses[0][1]) == [True] * 3

    asyncio.run(main())


def test_what_is_recorded_while_a_stop_ends_the_threads_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter that is moved then, for example: if it were not kept, it would be back, and as if never delivered.
    """
    end = StoreThread.end

    async def main() -> None:
        async with Runtime(config(tmp_path / "a")) as broker:
            await asyncio.to_thread(publish, broker.addresses[0][1], b"purged")
            assert broker._listeners is not None
            queue = broker._listeners._broker.vhosts["/"].queues["orders"]

            async def purge_and_end(self: StoreThread) -> None:
                if len(queue.ready):
                    queue.purge()
                await end(self)

            monkeypatch.setattr(StoreThread, "end", purge_and_end)
        monkeypatch.undo()
        async with Runtime(config(tmp_path / "a")) as broker:
            assert await asyncio.to_thread(bodies, broker.addresses[0][1]) == []

    asyncio.run(main())


def test_the_management_api_delivers_nothing_once_the_broker_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served until the store is closed, and nothing that it delivered then could be stored."""
    end = StoreThread.end
    wanted = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}
    replies: list[Reply] = []

    async def main() -> None:
        served = replace(config(tmp_path / "a"), management=Management(listeners=(Listener("127.0.0.1:0"),)))
        async with Runtime(served) as broker:
            await asyncio.to_thread(publish, broker.addresses[0][1], b"kept")
            api = Api(broker, asyncio.get_running_loop())

            async def get_and_end(self: StoreThread) -> None:
                if not replies:
                    replies.append(await asyncio.to_thread(api.ask, "POST", "/queues/%2F/orders/get", wanted))
                await end(self)

            monkeypatch.setattr(StoreThread, "end", get_and_end)
        monkeypatch.undo()
        async with Runtime(config(tmp_path / "a")) as broker:
            assert await asyncio.to_thread(bodies, broker.addresses[0][1]) == [b"kept"]

    asyncio.run(main())
    assert (replies[0].status, replies[0].body["reason"]) == (503, "the broker is stopping")


def test_a_store_that_fails_at_the_end_of_a_stop_is_not_closed_as_if_it_were_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the start knows that messages may have been delivered."""
    def get(port: int) -> bool:
        with Client(port) as client:
            found = client.get("orders")
            assert found is not None
            return bool(found.method.redelivered)

    def fail(self: Committer) -> None:
        raise StoreError("the disk is gone")

    async def main() -> None:
        with pytest.raises(StoreError, match="the disk is gone"):
            async with Runtime(config(tmp_path / "a")) as broker:
                await asyncio.to_thread(publish, broker.addresses[0][1], b"body")
                assert not await asyncio.to_thread(get, broker.addresses[0][1])
                monkeypatch.setattr(Committer, "commit_rest", fail)
        monkeypatch.undo()
        async with Runtime(config(tmp_path / "a")) as broker:
            assert await asyncio.to_thread(get, broker.addresses[0][1])

    asyncio.run(main())


@pytest.mark.parametrize("is_stored", [True, False])
def test_limits_of_the_configuration_hold(tmp_path: Path, is_stored: bool) -> None:
    limits = Limits(ballast_size=0, max_channels=1, max_queues=2, consumers_per_channel=1, bindings_per_queue=1)
    limited = Config(
        data_dir=tmp_path / "a", memory=not is_stored, listeners=(Listener("127.0.0.1:0"),), limits=limits)

    def exceed(port: int, *methods: Frame) -> str:
        """Return what the second of these calls of one client is refused with."""
        with Client(port) as client:
            client.call(Queue.Declare(0, "q"))
            client.call(methods[0])
            with pytest.raises(Refused) as refused:
                if methods[1:]:
                    client.call(methods[1])
                else:
                    Client(port).close()
            return f"{refused.value.code} {refused.value.text}"

    async def main() -> None:
        async with Runtime(limited) as broker:
            port = broker.addresses[0][1]
            for methods, code, setting in [
                ([Queue.Bind(0, "q", "amq.direct", key) for key in "ab"], 406, "limits.bindings_per_queue"),
                ([Basic.Consume(queue="q", consumer_tag=tag) for tag in "ab"], 406, "limits.consumers_per_channel"),
                ([Confirm.Select()], 530, "limits.max_channels"),
                ([Queue.Declare(0, name) for name in ("q2", "q3")], 406, "limits.max_queues"),
            ]:
                told = await asyncio.to_thread(exceed, port, *methods)
                assert told.startswith(f"{code} ") and setting in told

    asyncio.run(main())


@pytest.mark.parametrize(("limit", "setting"), [
    ("frame_max", "frame_max"), ("channel_max", "channel_max"), ("max_message_size", "max_body_size"),
    ("login_buffer_size", "early_bytes"), ("incomplete_bodies_size", "incomplete_limit"),
    ("transaction_operations", "transaction_acts"), ("transaction_size", "transaction_bytes"),
    ("outgoing_buffer_size", "outgoing_limit"), ("max_channels", "channel_limit"), ("heartbeat_s", "heartbeat_s"),
])
def test_sessions_have_the_limits_of_the_configuration(limit: str, setting: str) -> None:
    value = getattr(Limits(), limit) + 1
    settings = session_settings(Config(limits=Limits(**{limit: value})))
    assert getattr(settings, setting) == value


@pytest.mark.parametrize("limits, expected", [
    (Limits(), (50, 25)), (Limits(max_unauthenticated=9, max_unauthenticated_per_address=8), (9, 8))])
def test_clients_before_login_have_half_of_the_descriptors_and_one_address_a_quarter(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(live_limits, "descriptors_for_clients", lambda: 100)
    clients = live_limits.unauthenticated_clients(Config(limits=limits))
    assert (clients.limit, clients.limit_per_address) == expected


def test_a_broker_is_stopped_by_whoever_may(tmp_path: Path) -> None:
    async def main(stop: Callable[[Runtime], Any]) -> None:
        async with Runtime(config(tmp_path / "a")) as broker:
            stop(broker)
            await broker.wait_until_stopping()

    asyncio.run(main(Runtime.stop))


def test_the_limit_of_the_disk_can_be_a_multiple_of_the_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        limits = Limits(ballast_size=0, disk_free_limit_relative=1_000, disk_free_limit=1)
        async with Runtime(Config(data_dir=tmp_path, listeners=(Listener("127.0.0.1:0"),), limits=limits)):
            pass

    asyncio.run(main())
    assert any(text.endswith(f"Limit: {available_bytes() * 1_000}") for text in caplog.messages)


@pytest.mark.parametrize("mechanisms", [("PLAIN",), ("PLAIN", "SCRAM-SHA-256")])
def test_what_scram_needs_is_kept_where_it_is_enabled(tmp_path: Path, mechanisms: tuple[Any, ...]) -> None:
    async def main() -> tuple[bool, bool]:
        data_dir = tmp_path / "a"
        async with Runtime(replace(config(data_dir), auth_mechanisms=mechanisms)) as runtime:
            new = {"user": "u", "password": "p"}
            await asyncio.to_thread(ask, data_dir / CONTROL_SOCKET, "add_user", new, timeout_s=20.0)
            assert runtime._listeners is not None
            user = runtime._listeners._broker.users["u"]
            return (data_dir / LOGIN_KEY).exists(), bool(user.definition.scram_sha256)

    is_enabled = "SCRAM-SHA-256" in mechanisms
    assert asyncio.run(main()) == (is_enabled, is_enabled)


def test_commits_are_measured(tmp_path: Path) -> None:
    async def main() -> Measures:
        async with Runtime(config(tmp_path)) as runtime:
            await asyncio.to_thread(publish, runtime.addresses[0][1], b"measured")
            return runtime.measures

    measures = asyncio.run(main())
    assert measures.commit_seconds.count == measures.batch_bytes.count >= 2
    assert 0 < measures.commit_seconds.sum < 60
    assert measures.batch_bytes.sum > len(b"measured")


def test_clients_are_turned_away_while_the_application_is_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        async with Runtime(config(tmp_path), close_ok_wait_s=0.1) as broker:
            port, control = broker.addresses[0][1], tmp_path / CONTROL_SOCKET
            await asyncio.to_thread(publish, port, b"kept")

            def stop_and_start() -> None:
                with Client(port) as client:
                    refusal = refused(control, "reset")
                    assert refusal.exit_code == 64 and "requires the 'rabbit' app to be stopped" in str(refusal)
                    ask(control, "stop_app", {}, timeout_s=10)
                    with pytest.raises((Refused, OSError, EOFError)):
                        client.call(Queue.Declare(0, "orders", durable=True))
                with pytest.raises((Refused, OSError, EOFError)):
                    Client(port)
                assert ask(control, "is_running", {}, timeout_s=10) is False
                ask(control, "start_app", {}, timeout_s=10)
                assert ask(control, "is_running", {}, timeout_s=10) is True
                assert bodies(port) == [b"kept"]

            await asyncio.to_thread(stop_and_start)

    asyncio.run(main())


def test_a_reset_broker_is_a_new_one_also_after_a_restart(tmp_path: Path) -> None:
    declared = replace(config(tmp_path), queues=(QueueDeclaration(name="declared", vhost="/"),))

    def names(control: Path) -> list[list[Any]]:
        return [
            ask(control, command, {"vhost": "/", "columns": [column]}, timeout_s=10)["rows"]
            for command, column in (("list_vhosts", "name"), ("list_users", "user"), ("list_queues", "name"))]

    async def main() -> None:
        control = tmp_path / CONTROL_SOCKET

        def reset(port: int) -> None:
            publish(port, b"lost")
            for command, arguments in (
                    ("add_user", {"user": "till", "password": "x"}), ("add_vhost", {"vhost": "shop"}),
                    ("enable_vhost_deletion_protection", {"vhost": "shop"}),
                    ("set_global_parameter", {"name": "mine", "value": "1"}), ("stop_app", {}), ("reset", {})):
                ask(control, command, arguments, timeout_s=10)
            assert ask(control, "list_global_parameters", {}, timeout_s=10)["rows"] == []

        new = [[["/"]], [["guest"]], [["declared"]]]
        async with Runtime(declared) as broker:
            await asyncio.to_thread(reset, broker.addresses[0][1])
            assert await asyncio.to_thread(names, control) == new
        async with Runtime(declared) as broker:
            assert await asyncio.to_thread(names, control) == new
            await asyncio.to_thread(publish, broker.addresses[0][1], b"a restart starts the application")

    asyncio.run(main())


def refused(control: Path, command: str) -> Failure:
    """Return the refusal of a command."""
    with pytest.raises(Failure) as caught:
        ask(control, command, {}, timeout_s=10)
    return caught.value


def test_statistics_are_sampled_while_the_api_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        sampled = asyncio.Event()

        async def sample_forever(statistics: Statistics) -> None:
            statistics.sample()
            assert statistics.node()["mem_used"] > 0 < statistics.node()["fd_used"]
            assert statistics.measures is runtime.measures
            sampled.set()

        monkeypatch.setattr(Statistics, "sample_forever", sample_forever)
        runtime = Runtime(replace(config(tmp_path), management=Management(listeners=(Listener("127.0.0.1:0"),))))
        async with runtime:
            await asyncio.wait_for(sampled.wait(), 20)

    asyncio.run(main())


def test_the_doctor_knows_the_settings_in_effect(tmp_path: Path) -> None:
    async def main() -> None:
        before = config(tmp_path)
        async with Runtime(before) as runtime:
            after = replace(before, limits=replace(before.limits, disk_free_limit=123 << 20))
            runtime.change_settings(after, frozenset({"limits.disk_free_limit"}))
            found = await asyncio.to_thread(ask, tmp_path / CONTROL_SOCKET, "doctor", {}, timeout_s=20)
        assert "the disk alarm is raised below 123 MiB" in str(found)

    asyncio.run(main())
