"""A client that does not read its answers: its input is not read any more, and it uses little memory.

The transport is full from the moment at which the test says so, and sends what waits when the test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue, Tx

from amqpd.session.receiver import UNREAD_ANSWERS
from amqpd.session.settings import SessionSettings
from amqpd.session.state import UNREAD_REPLIES
from tests.support.talk import Stage, Talk

LIMIT = 100_000
SOME = 200_000          # octets: what the answers are counted in, a frame, and a message


@pytest.fixture
def settings() -> SessionSettings:
    return SessionSettings(server_properties={}, outgoing_limit=LIMIT, max_body_size=100_000)


@pytest.fixture
def stage(settings: SessionSettings) -> Iterator[Stage]:
    """Return a stage where input arrives at once: there is too much for octet by octet."""
    stage = Stage(settings=settings)
    yield stage
    stage.assert_silent()


class Pipe:
    """The connection between a session and its client; `is_open` says whether the client reads."""

    def __init__(self, stage: Stage, talk: Talk) -> None:
        self.stage, self.talk = stage, talk
        self.is_open = True
        self.waiting: list[bytes] = []
        self._take = talk.take
        talk.take = self.take       # type: ignore[method-assign]
        talk.session.state.unsent = lambda: sum(map(len, self.waiting))

    def take(self, pieces: list[bytes]) -> None:
        """The session writes."""
        self.waiting += pieces
        if self.is_open:
            self.flush()
        elif sum(map(len, self.waiting)) > LIMIT:
            self.talk.session.state.is_writable = False

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        self._take(waiting)

    def open(self) -> None:
        """The client reads again, all that there is."""
        self.is_open = True
        self.flush()
        self.talk.session.state.is_writable = True
        self.talk.session.resume()
        self.stage.end_turn()

    @property
    def held(self) -> int:
        """Octets that wait for this client, wherever."""
        return self.talk.session.outbox.size + sum(map(len, self.waiting))


@pytest.fixture
def reader(stage: Stage) -> Talk:
    """A client with a queue `q`."""
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    return talk


@pytest.fixture
def pipe(stage: Stage, reader: Talk) -> Pipe:
    """The reader does not read from now on."""
    pipe = Pipe(stage, reader)
    pipe.is_open = False
    return pipe


def get_and_put_back(talk: Talk) -> None:
    for tag in range(1, 51):
        talk.client(Basic.Get(queue="q"), Basic.Nack(tag))


def publish_to_nobody(talk: Talk) -> None:
    for _ in range(50):
        talk.client(Basic.Publish(routing_key="nobody", mandatory=True), content=bytes(90_000))


def declare_passively(talk: Talk) -> None:
    for _ in range(200):
        talk.client(b"".join([QUEUE_DECLARE_PASSIVE] * 500))


QUEUE_DECLARE_PASSIVE = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x32\x00\x0a\x00\x00\x01q\x01\x00\x00\x00\x00\xce"


@pytest.mark.parametrize("ask", [get_and_put_back, publish_to_nobody, declare_passively])
def test_answers_that_nobody_reads_stop_at_a_few_times_the_limit(
    reader: Talk, pipe: Pipe, ask: Callable[[Talk], None]
) -> None:
    reader.publish("q", bytes(90_000))
    ask(reader)
    assert UNREAD_ANSWERS * LIMIT < pipe.held < UNREAD_ANSWERS * LIMIT + SOME
    assert reader.session.receiver.waits_for_reader and reader.session.receiver.is_deferred


def test_what_it_said_meanwhile_is_answered_in_order_once_it_has_read(reader: Talk, pipe: Pipe) -> None:
    reader.publish("q", bytes(90_000))
    get_and_put_back(reader)
    reader.client(Queue.Declare(queue="last"))
    for _ in range(20):
        assert pipe.held < UNREAD_ANSWERS * LIMIT + SOME
        pipe.open()
        if not reader.session.receiver.waits_for_reader:
            break
        pipe.is_open = False
    heard = reader.hear_all()
    assert [one.said.delivery_tag for one in heard[:-1]] == list(range(1, 51))
    assert isinstance(heard[-1].said, Queue.DeclareOk)


def test_answers_that_wait_for_a_commit_count_too(stage: Stage, reader: Talk) -> None:
    stage.commits_at_once = False
    reader.publish("q", bytes(90_000)).client(Queue.Declare(queue="durable", durable=True)).nothing()
    get_and_put_back(reader)
    assert reader.session.receiver.waits_for_reader
    assert UNREAD_ANSWERS * LIMIT < reader.session.outbox.size < UNREAD_ANSWERS * LIMIT + SOME
    while reader.session.receiver.waits_for_reader:
        stage.commit()
        stage.end_turn()
    assert len([one for one in reader.hear_all() if isinstance(one.said, Basic.GetOk)]) == 50


def test_deliveries_that_wait_do_not_keep_a_client_from_being_heard(stage: Stage, reader: Talk, pipe: Pipe) -> None:
    """One that reads nothing while it writes would wait for ever."""
    reader.publish("q", *[bytes(90_000)] * 10).client(Basic.Consume(queue="q", no_ack=True))
    assert pipe.held > LIMIT
    for _ in range(20):
        reader.publish("elsewhere", bytes(90_000))
    reader.client(Queue.Declare(queue="r"))
    assert not reader.session.receiver.is_deferred and "r" in stage.broker.vhosts["/"].queues
    pipe.open()
    reader.hear_all()


def test_answers_that_are_read_never_add_up(reader: Talk) -> None:
    reader.publish("q", bytes(90_000))
    for tag in range(1, 200):
        reader.client(Basic.Get(queue="q"), Basic.Nack(tag)).hear(Basic.GetOk)
        assert not reader.session.receiver.waits_for_reader
    assert len(reader.session.outbox._marks) < 100


def test_a_client_that_is_closed_meanwhile_is_heard_for_the_answer_to_it(reader: Talk, pipe: Pipe) -> None:
    reader.publish("q", bytes(90_000))
    get_and_put_back(reader)
    reader.session.force_close("bye")
    assert not reader.session.receiver.is_deferred
    reader.client(Connection.CloseOk())
    assert reader.session.is_finished
    pipe.open()
    assert isinstance(reader.hear_all()[-1].said, Connection.Close)


def test_a_client_that_goes_meanwhile_is_forgotten(stage: Stage, reader: Talk, pipe: Pipe) -> None:
    reader.publish("q", bytes(90_000))
    get_and_put_back(reader)
    reader.session.lost()
    assert not reader.session.receiver.is_deferred and reader.session.outbox.size == 0


def test_a_client_that_is_not_read_is_not_held_to_its_heartbeats(stage: Stage) -> None:
    talk = stage.client(heartbeat=5).open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    Pipe(stage, talk).is_open = False
    talk.publish("q", bytes(90_000))
    get_and_put_back(talk)
    talk.session.is_read = False
    stage.pass_time(60)
    assert not talk.is_dropped


# Direct replies

@pytest.fixture
def caller(reader: Talk) -> str:
    """The reader consumes direct replies; its address."""
    reader.client(Basic.Consume(queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True)).hear(Basic.ConsumeOk)
    reader.client(Basic.Publish(routing_key="q"), content=b"", properties=Basic.Properties(
        reply_to="amq.rabbitmq.reply-to"))
    reader.client(Basic.Get(queue="q", no_ack=True))
    heard = reader.hear_all()[-1]
    assert heard.properties is not None and heard.properties.reply_to is not None
    return heard.properties.reply_to


def test_replies_to_a_client_that_does_not_read_are_dropped_beyond_a_bound_and_counted(
    stage: Stage, reader: Talk, caller: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = Pipe(stage, reader)
    pipe.is_open = False
    replier = stage.client().open_channel()
    replier.client(Confirm.Select()).hear(Confirm.SelectOk)
    for _ in range(50):
        replier.publish(caller, bytes(90_000)).hear(Basic.Ack)
    assert UNREAD_REPLIES * LIMIT < pipe.held < UNREAD_REPLIES * LIMIT + SOME
    dropped = reader.session.channels[1].consuming.replies.dropped
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "direct replies" in text] == [
        f"{reader.session.name}: channel 1: direct replies are dropped: the client does not read its input"]
    pipe.open()
    assert len(reader.hear_all()) == 50 - dropped
    replier.publish(caller, b"late").hear(Basic.Ack)
    assert reader.hear_all()[-1].body == b"late"


def test_a_channel_tells_how_many_replies_were_dropped(reader: Talk) -> None:
    assert reader.session.channel_statistics()[0].dropped_replies == 0


# Transactions

def test_the_returns_of_a_commit_are_held_against_the_limit_after_it(stage: Stage, reader: Talk, pipe: Pipe) -> None:
    reader.client(Tx.Select())
    for _ in range(10):
        reader.client(Basic.Publish(routing_key="nobody", mandatory=True), content=bytes(90_000))
    reader.client(Tx.Commit(), Channel.Close(200, "", 0, 0))
    assert reader.session.receiver.waits_for_reader and 1 in reader.session.channels
    pipe.open()
    assert [type(one.said) for one in reader.hear_all()][-2:] == [Tx.CommitOk, Channel.CloseOk]
