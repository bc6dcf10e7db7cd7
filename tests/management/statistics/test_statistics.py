"""What a client did is in the statistics of its queues, exchange, channel, connection, vhost, and of the broker.

The numbers and the forms are those of RabbitMQ 3.10.8 after the same methods.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Confirm, Queue, Tx

from amqpd.broker.definitions import VhostDefinition
from amqpd.broker.queue.queue import Queue as BrokerQueue
from amqpd.management.statistics import InvalidRange, Range, Ranges, Statistics
from amqpd.management.statistics.statistics import QUEUE_DELIVERIES, QUEUE_PUBLISHES
from tests.support.talk import Stage, Talk

RANGES = Ranges(lengths=Range(15, 5), msg_rates=Range(15, 5), data_rates=Range(15, 5), node_stats=Range(15, 5))
REDUCTIONS = {"reductions": 0, "reductions_details": {"rate": 0.0}}
DELIVERIES = ("ack", "deliver", "deliver_get", "deliver_no_ack", "get", "get_empty", "get_no_ack", "redeliver")


@pytest.fixture
def stage() -> Stage:
    """A broker and its clients."""
    return Stage()


@pytest.fixture
def statistics(stage: Stage) -> Statistics:
    """The statistics of that broker, which have been sampled once."""
    statistics = Statistics(stage.broker, lambda: stage.now_ms, lambda: {"mem_used": 1_000, "fd_used": 7})
    statistics.sample()
    return statistics


@pytest.fixture
def talk(stage: Stage) -> Talk:
    """A client with channels 1 and 2, and queue `q`."""
    talk = stage.client().open_channel().open_channel(2)
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    return talk


def queue(stage: Stage, name: str = "q") -> BrokerQueue:
    return stage.broker.vhosts["/"].queues[name]


def counts(record: dict[str, Any]) -> dict[str, int]:
    """The numbers of `message_stats` that are not 0."""
    return {key: value for key, value in record["message_stats"].items() if isinstance(value, int) and value}


def next_tick(stage: Stage, statistics: Statistics) -> None:
    stage.now_ms += 5_000
    statistics.sample()


def test_an_object_without_traffic_has_no_message_stats(stage: Stage, statistics: Statistics, talk: Talk) -> None:
    vhost = stage.broker.vhosts["/"]
    assert statistics.queue(queue(stage)) == {
        "messages": 0, "messages_details": {"rate": 0.0}, "messages_ready": 0, "messages_ready_details": {"rate": 0.0},
        "messages_unacknowledged": 0, "messages_unacknowledged_details": {"rate": 0.0}, **REDUCTIONS}
    assert statistics.exchange(vhost.exchanges["amq.direct"]) == {}
    assert statistics.channel(1, 1) == REDUCTIONS
    assert statistics.channel(1, 9) == {} == statistics.channel(9, 1) == statistics.connection(9)
    assert "message_stats" not in statistics.vhost(vhost)
    assert "message_stats" not in statistics.connection(1)
    overview = statistics.overview()
    assert not counts(overview)
    assert {*overview["message_stats"]} >= {*DELIVERIES, "publish", "confirm", "drop_unroutable", "return_unroutable"}
    assert overview["queue_totals"]["messages_details"] == {"rate": 0.0}


def test_publishes_are_counted_for_queue_exchange_channel_and_broker(
    stage: Stage, statistics: Statistics, talk: Talk
) -> None:
    vhost = stage.broker.vhosts["/"]
    for name in ("f1", "f2"):
        talk.client(Queue.Declare(queue=name)).hear(Queue.DeclareOk)
        talk.client(Queue.Bind(queue=name, exchange="amq.fanout")).hear(Queue.BindOk)
    talk.publish("q", b"a", b"b").publish("", b"c", b"d", b"e", exchange="amq.fanout").publish("nowhere", b"f")
    talk.client(Confirm.Select(), channel=2).hear(Confirm.SelectOk)
    talk.publish("q", b"g", b"h", channel=2).publish("nowhere", b"i", mandatory=True, channel=2).hear_all()
    assert counts(statistics.queue(queue(stage))) == {"publish": 4}
    assert counts(statistics.queue(queue(stage, "f2"))) == {"publish": 3}
    assert counts(statistics.exchange(vhost.exchanges[""])) == {"publish_in": 6, "publish_out": 4}
    assert counts(statistics.exchange(vhost.exchanges["amq.fanout"])) == {"publish_in": 3, "publish_out": 6}
    assert counts(statistics.channel(1, 1)) == {"publish": 6, "drop_unroutable": 1}
    assert counts(statistics.channel(1, 2)) == {"publish": 3, "confirm": 3, "return_unroutable": 1}
    total = {"publish": 9, "confirm": 3, "drop_unroutable": 1, "return_unroutable": 1}
    for record in (statistics.connection(1), statistics.vhost(vhost), statistics.overview()):
        assert counts(record) == total
    assert statistics.totals.published[4:] == [3, 10]
    assert statistics.vhost(vhost)["messages"] == 10 == statistics.overview()["queue_totals"]["messages_ready"]


def test_deliveries_gets_and_acks_are_counted(stage: Stage, statistics: Statistics, talk: Talk) -> None:
    talk.publish("q", *[b"%d" % number for number in range(6)])
    talk.client(Basic.Get(queue="q", no_ack=True)).hear(Basic.GetOk)
    talk.client(Basic.Get(queue="q")).hear(Basic.GetOk)
    talk.client(Basic.Reject(2, requeue=True), Basic.Get(queue="q")).hear(Basic.GetOk)
    talk.client(Basic.Ack(3))
    talk.client(Basic.Consume(queue="q", consumer_tag="c"), channel=2).hear_all()
    talk.client(Basic.Ack(2, True), Basic.Nack(3, requeue=False), channel=2)
    talk.client(Basic.Get(queue="q")).hear(Basic.GetEmpty)
    talk.client(Basic.Cancel("c"), Basic.Consume(queue="q", no_ack=True), channel=2).publish("q", b"x").hear_all()
    all_of = {
        "publish": 7, "get": 2, "get_no_ack": 1, "get_empty": 1, "deliver": 4, "deliver_no_ack": 1, "deliver_get": 8,
        "redeliver": 1, "ack": 3}
    for record in (statistics.queue(queue(stage)), statistics.connection(1), statistics.overview()):
        assert counts(record) == all_of
    assert counts(statistics.channel(1, 1)) == {
        "publish": 7, "get": 2, "get_no_ack": 1, "get_empty": 1, "deliver_get": 3, "redeliver": 1, "ack": 1}
    assert counts(statistics.channel(1, 2)) == {"deliver": 4, "deliver_no_ack": 1, "deliver_get": 5, "ack": 2}
    assert statistics.totals.dropped == {("classic", "rejected", "disabled"): 1}


def test_a_group_of_numbers_is_there_once_one_of_them_is_not_0(
    stage: Stage, statistics: Statistics, talk: Talk
) -> None:
    talk.client(Basic.Get(queue="q")).hear(Basic.GetEmpty)
    assert {*statistics.queue(queue(stage))["message_stats"]} == {
        *DELIVERIES, *[f"{name}_details" for name in DELIVERIES]}
    talk.publish("nowhere", b"a", channel=2)
    assert {*statistics.channel(1, 2)["message_stats"]} == {
        name + end for end in ("", "_details")
        for name in ("publish", "confirm", "return_unroutable", "drop_unroutable")}


def test_a_transaction_counts_at_its_commit(stage: Stage, statistics: Statistics, talk: Talk) -> None:
    talk.client(Tx.Select()).hear(Tx.SelectOk)
    talk.publish("q", b"a").publish("nowhere", b"b").client(Tx.Rollback()).hear(Tx.RollbackOk)
    assert statistics.channel(1, 1) == REDUCTIONS
    talk.publish("q", b"a", b"b").publish("nowhere", b"b").publish("q", b"c", exchange="amq.fanout", mandatory=True)
    assert statistics.channel(1, 1) == REDUCTIONS
    talk.client(Tx.Commit()).hear_all()
    assert counts(statistics.channel(1, 1)) == {"publish": 4, "drop_unroutable": 1, "return_unroutable": 1}
    exchanges = stage.broker.vhosts["/"].exchanges
    assert counts(statistics.exchange(exchanges[""])) == {"publish_in": 3, "publish_out": 2}
    assert counts(statistics.exchange(exchanges["amq.fanout"])) == {"publish_in": 1}


def test_a_publish_to_very_many_queues_is_counted_once(stage: Stage, statistics: Statistics, talk: Talk) -> None:
    names = [f"w{number}" for number in range(260)]
    talk.client(*[Queue.Declare(queue=name) for name in names])
    talk.client(*[Queue.Bind(queue=name, exchange="amq.fanout") for name in names]).hear_all()
    talk.publish("", b"a", b"b", exchange="amq.fanout")
    assert counts(statistics.exchange(stage.broker.vhosts["/"].exchanges["amq.fanout"])) == {
        "publish_in": 2, "publish_out": 520}
    assert counts(statistics.channel(1, 1)) == {"publish": 2}


def test_the_statistics_of_a_vhost_look_at_no_other_vhost(
    stage: Stage, statistics: Statistics, talk: Talk
) -> None:
    stage.broker.add_vhost(VhostDefinition("other"))
    vhosts = stage.broker.vhosts
    talk.publish("q", b"a", b"b").client(Basic.Get(queue="q", no_ack=True)).hear(Basic.GetOk)
    assert statistics.vhost(vhosts["other"])["messages"] == 0
    assert not any(vhosts["/"].totals.published)
    assert not any(vhosts["/"].totals.all_delivered)
    assert vhosts["/"].totals.received_bytes == 0
    record = statistics.vhost(vhosts["/"])
    assert counts(record) == {"publish": 2, "get_no_ack": 1, "deliver_get": 1}
    assert record["messages"] == 1
    assert record["recv_oct"] == vhosts["/"].totals.received_bytes > 0


def test_totals_stay_when_queues_channels_connections_and_vhosts_are_gone(
    stage: Stage, statistics: Statistics, talk: Talk
) -> None:
    stage.broker.add_vhost(VhostDefinition("other"))
    talk.publish("q", b"a", b"b").client(Basic.Get(queue="q", no_ack=True)).hear(Basic.GetOk)
    expected = {"publish": 2, "get_no_ack": 1, "deliver_get": 1}
    talk.client(Queue.Delete(queue="q")).hear(Queue.DeleteOk)
    talk.client(Channel.Close(200, "", 0, 0)).hear(Channel.CloseOk)
    assert counts(statistics.overview()) == expected
    received = statistics.connection(1)["recv_oct"]
    stage.lose(talk.session)
    stage.end_turn()
    assert counts(statistics.vhost(stage.broker.vhosts["/"])) == counts(statistics.overview()) == expected
    assert stage.broker.totals.received_bytes == received > 100
    stage.broker.delete_vhost("/")
    stage.end_turn()
    assert counts(statistics.overview()) == expected
    churn = statistics.overview()["churn_rates"]
    assert {key: value for key, value in churn.items() if isinstance(value, int)} == {
        "connection_created": 1, "connection_closed": 1, "channel_created": 2, "channel_closed": 2,
        "queue_declared": 1, "queue_created": 1, "queue_deleted": 1}
    next_tick(stage, statistics)
    assert counts(statistics.overview()) == expected


def test_rates_are_those_of_the_last_sampling(stage: Stage, statistics: Statistics, talk: Talk) -> None:
    talk.publish("q", *[b"x"] * 10)
    assert statistics.publishers == 0
    assert statistics.queue(queue(stage))["message_stats"] == {"publish": 10, "publish_details": {"rate": 0.0}}
    next_tick(stage, statistics)
    assert statistics.publishers == 1
    for record in (
            statistics.queue(queue(stage)), statistics.channel(1, 1), statistics.connection(1), statistics.overview(),
            statistics.vhost(stage.broker.vhosts["/"])):
        assert record["message_stats"]["publish_details"] == {"rate": 2.0}
    assert statistics.queue(queue(stage))["messages_details"] == {"rate": 2.0}
    assert statistics.overview()["churn_rates"]["queue_declared_details"] == {"rate": 0.2}
    talk.client(Queue.Purge(queue="q")).hear(Queue.PurgeOk)
    next_tick(stage, statistics)
    assert statistics.queue(queue(stage))["message_stats"]["publish_details"] == {"rate": 0.0}
    assert statistics.queue(queue(stage))["messages_details"] == {"rate": -2.0}
    stage.now_ms += 5_000           # a sampling is left out
    talk.publish("q", *[b"x"] * 30)
    next_tick(stage, statistics)
    assert statistics.queue(queue(stage))["message_stats"]["publish_details"] == {"rate": 3.0}


def test_a_rate_that_a_list_is_sorted_by_is_that_of_the_record(
    stage: Stage, statistics: Statistics, talk: Talk,
) -> None:
    talk.publish("q", *[b"x"] * 10)
    talk.client(Basic.Get(queue="q", no_ack=True)).hear_all()
    fields = (*QUEUE_PUBLISHES, *QUEUE_DELIVERIES)

    def rates() -> dict[str, float]:
        return {field.details: statistics.queue_rate(queue(stage), field) for field in fields}

    next_tick(stage, statistics)
    stats = statistics.queue(queue(stage))["message_stats"]
    assert rates() == {field.details: stats[field.details]["rate"] for field in fields}
    assert (rates()["publish_details"], rates()["deliver_get_details"]) == (2.0, 0.2)
    next_tick(stage, statistics)
    assert set(rates().values()) == {0.0}


def test_samples_have_rabbitmq_s_form(stage: Stage, statistics: Statistics, talk: Talk) -> None:
    next_tick(stage, statistics)
    talk.publish("q", *[b"x"] * 10)
    next_tick(stage, statistics)
    now = stage.broker.clock.to_wall(stage.now_ms) // 5_000 * 5_000
    samples = [{"sample": sample, "timestamp": now - 5_000 * age} for age, sample in enumerate((10, 0, 0, 0))]
    details = {"rate": 2.0, "avg_rate": 10 / 15, "avg": 2.5, "samples": samples}
    record = statistics.queue(queue(stage), RANGES)
    assert record["message_stats"] == {"publish": 10, "publish_details": details}
    assert record["messages_details"] == record["messages_ready_details"] == details
    assert statistics.connection(1, RANGES)["message_stats"]["publish_details"] == details
    assert statistics.overview(RANGES)["message_stats"]["publish_details"] == details
    assert statistics.node(RANGES)["fd_used_details"] == {
        "rate": 0.0, "avg_rate": 0.0, "avg": 7.0, "samples": [one | {"sample": 7} for one in samples]}
    single = statistics.queue(queue(stage), Ranges(lengths=Range(3, 5)))["messages_details"]
    assert single == {"rate": 0.0, "samples": [{"sample": 0, "timestamp": now - 3_000}]}


def test_what_was_there_at_start_is_no_change(stage: Stage, talk: Talk) -> None:
    talk.publish("q", b"a", b"b")
    statistics = Statistics(stage.broker, lambda: stage.now_ms)
    statistics.sample()
    record = statistics.queue(queue(stage), Ranges(lengths=Range(10, 5)))
    assert [one["sample"] for one in record["messages_details"]["samples"]] == [2, 2, 2]
    assert statistics.overview()["queue_totals"]["messages_details"] == {"rate": 0.0}


def test_an_idle_object_has_no_history_and_a_deleted_one_loses_its_own(
    stage: Stage, statistics: Statistics, talk: Talk
) -> None:
    sampling = statistics._sampling
    next_tick(stage, statistics)
    assert len(sampling.queues) == len(sampling.exchanges) == len(sampling.channels) == 0
    talk.publish("q", b"a")
    next_tick(stage, statistics)
    assert len(sampling.queues) == len(sampling.exchanges) == len(sampling.channels) == 1
    talk.client(Queue.Delete(queue="q")).hear(Queue.DeleteOk)
    talk.client(Channel.Close(200, "", 0, 0)).hear(Channel.CloseOk)
    next_tick(stage, statistics)
    assert len(sampling.queues) == len(sampling.channels) == 0


def test_without_samples_totals_are_true_and_nothing_has_a_history(stage: Stage, talk: Talk) -> None:
    statistics = Statistics(stage.broker, lambda: stage.now_ms, lambda: {"mem_used": 1_000}, keeps_samples=False)
    talk.publish("q", b"a", b"b")
    next_tick(stage, statistics)
    sampling = statistics._sampling
    assert statistics.totals.published[0] == 2 and statistics.publishers == 1
    assert statistics.node()["mem_used"] == 1_000
    assert not sum(map(len, (sampling.queues, sampling.exchanges, sampling.channels, sampling.connections,
                             sampling.vhosts, sampling.others)))


def test_ten_thousand_queues_are_sampled_in_slices(stage: Stage, statistics: Statistics, talk: Talk) -> None:
    vhost = stage.broker.vhosts["/"]
    queues = {f"q{number}": queue(stage) for number in range(10_000)}
    vhost.queues.update(queues)
    stage.now_ms += 5_000
    assert sum(1 for _ in statistics._sample()) >= 20
    for name in queues:
        del vhost.queues[name]


@pytest.mark.parametrize("age, incr", [("60", "0"), ("0", "5"), ("-60", "5"), ("3600", "5"), ("86400", "60")])
def test_a_range_that_rabbitmq_refuses_is_refused(age: str, incr: str) -> None:
    with pytest.raises(InvalidRange, match=f"^Invalid range parameters: age {age}, incr {incr}$"):
        Ranges.parse({"lengths_age": age, "lengths_incr": incr})


def test_a_range_counts_only_if_both_parts_are_whole_numbers() -> None:
    assert Ranges.parse({"lengths_age": "60", "msg_rates_age": "x", "msg_rates_incr": "5"}) == Ranges()
    assert Ranges.parse({"node_stats_age": "86400", "node_stats_incr": "1800"}) == Ranges(
        node_stats=Range(86_400, 1_800))


def test_the_node_s_numbers_have_histories_and_averages(stage: Stage) -> None:
    numbers = {"mem_used": 1_000, "commit_us": 30_000, "commit_count": 10, "msg_store_read_count": 5}
    statistics = Statistics(stage.broker, lambda: stage.now_ms, lambda: numbers)
    statistics.sample()
    numbers |= {"mem_used": 2_000, "commit_us": 90_000, "commit_count": 20, "msg_store_read_count": 15}
    next_tick(stage, statistics)
    node = statistics.node()
    assert (node["mem_used"], node["mem_used_details"]) == (2_000, {"rate": 200.0})
    assert (node["io_sync_avg_time"], node["io_sync_avg_time_details"]) == (4.5, {"rate": 6.0})
    overview = statistics.overview()["message_stats"]
    assert (overview["disk_reads"], overview["disk_reads_details"]) == (15, {"rate": 2.0})
    assert node["io_seek_avg_time"] == node["io_seek_count"] == 0
    assert {name for name in node if not name.endswith("_details")} == {
        name.removesuffix("_details") for name in node if name.endswith("_details")}
    assert [one["sample"] for one in statistics.node(RANGES)["io_sync_avg_time_details"]["samples"]] == [
        4.5, 3.0, 3.0, 3.0]


def test_numbers_that_cannot_be_measured_are_those_of_the_last_time(stage: Stage) -> None:
    answers: list[dict[str, int]] = [{"fd_used": 3}]
    statistics = Statistics(stage.broker, lambda: stage.now_ms, lambda: answers.pop() if answers else fail())
    statistics.sample()
    next_tick(stage, statistics)
    assert not answers and statistics.node()["fd_used"] == 3


def fail() -> dict[str, int]:
    raise OSError(24, "Too many open files")


def test_an_error_in_one_sampling_does_not_end_the_others(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    errors = [RuntimeError("only once")]

    def measure() -> dict[str, int]:
        stage.now_ms += 4_999
        if errors:
            raise errors.pop()
        raise asyncio.CancelledError

    statistics = Statistics(stage.broker, lambda: stage.now_ms // 5_000 * 5_000 + 4_999, measure)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(statistics.sample_forever())
    assert "internal error while statistics were sampled" in caplog.text


@pytest.mark.parametrize("arguments, counted", [
    ({"x-max-length": 1}, {("classic", "maxlen", "disabled"): 2}),
    ({"x-max-length": 1, "x-dead-letter-exchange": ""}, {("classic", "maxlen", "at_most_once"): 2}),
    ({"x-max-length": 1, "x-overflow": "reject-publish"}, {}),
    ({"x-max-length": 1, "x-overflow": "reject-publish-dlx", "x-dead-letter-exchange": ""},
     {("classic", "maxlen", "at_most_once"): 2}),
    ({"x-queue-type": "quorum", "x-message-ttl": 0, "x-overflow": "reject-publish", "x-dead-letter-exchange": "",
      "x-dead-letter-routing-key": "q", "x-dead-letter-strategy": "at-least-once"},
     {("quorum", "expired", "at_least_once"): 3, ("quorum", "confirmed", "at_least_once"): 3}),
], ids=["dropped", "dead-lettered", "refused", "refused and dead-lettered", "at least once"])
def test_dead_letters_are_counted_by_type_reason_and_strategy(
    stage: Stage, statistics: Statistics, talk: Talk, arguments: dict[str, Any], counted: dict[Any, int]
) -> None:
    talk.client(Queue.Declare(queue="limited", durable=True, arguments=arguments)).hear(Queue.DeclareOk)
    talk.publish("limited", b"a", b"b", b"c", persistent=True)
    assert statistics.totals.dropped == counted == stage.broker.vhosts["/"].totals.dropped
