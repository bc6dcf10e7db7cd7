"""A client's channels in random sessions, against a model of what the client should receive.

One client publishes with confirms, another one consumes on two channels, one of which may be transactional. Every octet
goes through sessions. The model knows where each message is, and the unacked tags of each channel, and checks all that
the broker sends at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pamqp.commands import Basic, Channel, Confirm, Queue, Tx

from amqpd.session.settings import SessionSettings
from tests.support.talk import Heard, Stage

SETTINGS = SessionSettings(server_properties={}, outgoing_limit=3_000, unacked_limit=20, small_content=0)
DURABLE, TRANSIENT = "durable", "transient"
COUNTED = {"x-delivery-limit": 1_000_000}      # the queues count, and no message fails as often
queues = st.sampled_from([DURABLE, TRANSIENT])
channels = st.sampled_from([1, 2])


class Place(Enum):
    """Where a message is."""

    HELD = auto()       # published in a transaction that has not been committed
    READY = auto()
    UNACKED = auto()
    GONE = auto()


class Sent:
    """A message as its publisher knows it: its body never changes, its turn is that of its publish or commit."""

    def __init__(self, number: int, queue: str, *, persistent: bool) -> None:
        self.body = self.turn = number
        self.queue = queue
        self.must_survive = persistent and queue == DURABLE
        self.place = Place.READY
        self.failures = 0
        self.was_written = False


class ModelConsumer:
    """A consumer as its client knows it."""

    def __init__(self, queue: str, prefetch: int, *, no_ack: bool) -> None:
        self.queue = queue
        self.limit = prefetch or SETTINGS.unacked_limit
        self.no_ack = no_ack


class ModelChannel:
    """A channel as its client knows it."""

    def __init__(self) -> None:
        self.next_tag = 1
        self.consumers: dict[str, ModelConsumer] = {}
        self.owed: dict[int, tuple[Sent, ModelConsumer | None]] = {}
        self.answered: list[tuple[dict[int, tuple[Sent, ModelConsumer | None]], bool]] = []     # in a transaction
        self.published: list[Sent] = []                                                         # likewise
        self.prefetch = 0
        self.shared_prefetch = 0

    def all_owed(self) -> Iterable[tuple[Sent, ModelConsumer | None]]:
        """What is unacked, or answered in a transaction that may still be undone."""
        yield from self.owed.values()
        for answered, _ in self.answered:
            yield from answered.values()

    def counted(self) -> int:
        """What the limit for the channel counts: deliveries to consumers, not gets."""
        return sum(consumer is not None for _, consumer in self.all_owed())


class ChannelMachine(RuleBasedStateMachine):
    """A publisher, a consumer, two queues."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, Sent] = {}
        self.numbers = count(1)
        self.tags = count(1)
        self.sequence: list[Sent] = []
        self.confirmed = 0

    @initialize(piece=st.sampled_from([0, 0, 1, 11]), transactional=st.booleans())
    def begin(self, piece: int, transactional: bool) -> None:
        self.stage = Stage(piece=piece, settings=SETTINGS)
        self.publisher = self.stage.client().open_channel()
        for queue in (DURABLE, TRANSIENT):
            declare = Queue.Declare(queue=queue, durable=queue == DURABLE, arguments=COUNTED)
            self.publisher.client(declare).hear(Queue.DeclareOk)
        self.publisher.client(Confirm.Select()).hear(Confirm.SelectOk)
        self.transactional = transactional
        self.connect()
        self.stage.commits_at_once = False

    def connect(self) -> None:
        self.client = self.stage.client()
        self.channels = {1: ModelChannel(), 2: ModelChannel()}
        for number in self.channels:
            self.open(number)

    def open(self, number: int) -> None:
        self.channels[number] = ModelChannel()
        self.client.open_channel(number)
        if number == 2 and self.transactional:
            self.client.client(Tx.Select(), channel=2).broker(Tx.SelectOk(), channel=2)

    # The publisher

    @rule(queue=queues, persistent=st.booleans(), bodies=st.integers(1, 4))
    def publish(self, queue: str, persistent: bool, bodies: int) -> None:
        run = [Sent(next(self.numbers), queue, persistent=persistent) for _ in range(bodies)]
        self.sent |= {one.body: one for one in run}
        self.sequence += run
        self.publisher.publish(queue, *(b"%d" % one.body for one in run), persistent=persistent)
        self.listen()

    @rule()
    def commit(self) -> None:
        before = self.kept()
        self.write()
        self.stage.end_turn()
        self.listen()
        assert self.confirmed == len(self.sequence), "something is safe, and its confirm does not come"
        # What had to be on disk to be handed out, and is gone with that, is there until the next commit.
        gone = {*before}.difference(self.kept())
        safe = [int(body) for body in self.stage.journal.safe.bodies(DURABLE)]
        assert safe == [body for body in before if body not in gone or body in safe]

    def kept(self) -> list[int]:
        """What the disk should hold, in order."""
        kept = [one for one in self.sent.values() if one.must_survive and one.place in (Place.READY, Place.UNACKED)]
        return [one.body for one in sorted(kept, key=lambda one: one.turn)]

    def write(self) -> None:
        """The disk has all that was published."""
        for one in self.sent.values():
            one.was_written |= one.place is not Place.HELD
        self.stage.commit()

    # The consumer

    @rule(number=channels, queue=queues, prefetch=st.integers(0, 3), no_ack=st.booleans())
    def consume(self, number: int, queue: str, prefetch: int, no_ack: bool) -> None:
        channel = self.channels[number]
        if len(channel.consumers) >= 3:
            return
        tag = f"c{next(self.tags)}"
        channel.consumers[tag] = ModelConsumer(queue, prefetch, no_ack=no_ack)
        self.client.client(
            Basic.Qos(prefetch_count=prefetch), Basic.Consume(queue=queue, consumer_tag=tag, no_ack=no_ack),
            channel=number)
        self.listen()

    @rule(number=channels, limit=st.integers(0, 4))
    def limit_channel(self, number: int, limit: int) -> None:
        self.channels[number].shared_prefetch = limit
        self.client.client(Basic.Qos(prefetch_count=limit, global_=True), channel=number)
        self.listen()

    @rule(number=channels, data=st.data())
    def cancel(self, number: int, data: st.DataObject) -> None:
        channel = self.channels[number]
        if channel.consumers:
            tag = data.draw(st.sampled_from(sorted(channel.consumers)))
            self.client.client(Basic.Cancel(tag), channel=number)
            self.listen()
            del channel.consumers[tag]

    @rule(number=channels, queue=queues, no_ack=st.booleans())
    def get(self, number: int, queue: str, no_ack: bool) -> None:
        if any(one.queue == queue for channel in self.channels.values() for one in channel.consumers.values()):
            self.commit()       # a consumer that waits for what may be handed out comes first
        expected = min((one.turn for one in self.at(queue, Place.READY)), default=None)
        self.client.client(Basic.Get(queue=queue, no_ack=no_ack), channel=number)
        if self.client.session.receiver.is_deferred:
            self.write()        # that it may be handed out has to be on disk first
        answer, = [heard for heard in self.client.hear_all() if isinstance(heard.said, (Basic.GetOk, Basic.GetEmpty))]
        if expected is None:
            assert isinstance(answer.said, Basic.GetEmpty)
            return
        assert isinstance(answer.said, Basic.GetOk) and answer.said.message_count == len(
            self.at(queue, Place.READY)) - 1
        assert self.handed_out(answer, None, no_ack=no_ack).turn == expected

    @rule(number=channels, data=st.data(), multiple=st.booleans(), verdict=st.sampled_from(["ack", "nack", "requeue"]))
    def answer(self, number: int, data: st.DataObject, multiple: bool, verdict: str) -> None:
        channel = self.channels[number]
        if not channel.owed:
            return
        tag = data.draw(st.sampled_from(sorted(channel.owed)))
        tags = [owed for owed in channel.owed if owed <= tag] if multiple else [tag]
        answered = {tag: channel.owed.pop(tag) for tag in tags}
        if number == 2 and self.transactional:
            channel.answered.append((answered, verdict == "requeue"))
        else:
            self.settle(answered, requeue=verdict == "requeue")
        method = Basic.Ack(tag, multiple) if verdict == "ack" else Basic.Nack(tag, multiple, verdict == "requeue")
        self.client.client(method, channel=number)
        self.listen()

    @rule(number=channels)
    def recover(self, number: int) -> None:
        channel = self.channels[number]
        owed, channel.owed = channel.owed, {}
        self.settle(owed, requeue=True)
        self.client.client(Basic.Recover(requeue=True), channel=number)
        self.listen()

    def settle(self, answered: dict[int, tuple[Sent, ModelConsumer | None]], *, requeue: bool) -> None:
        for one, _ in answered.values():
            one.place = Place.READY if requeue else Place.GONE
            one.failures += requeue

    @rule(number=channels)
    def release_contents(self, number: int) -> None:
        """Release the contents of unacked messages that are on disk, as after some time."""
        consuming = self.client.session.channels[number].consuming
        deliveries = consuming.deliveries
        deliveries._release_from, deliveries._release_end = 0, deliveries.next_tag
        for _ in consuming.contents.release_contents():
            pass
        for message, consumer in consuming.owed:
            kept = consumer.queue.records.keeps(message) and message.number <= self.stage.page_store.safe_number
            assert bool(message.content) is not kept, "what is on disk is in memory, or the other way round"

    # Transactions

    @precondition(lambda self: self.transactional)
    @rule(queue=queues, persistent=st.booleans())
    def publish_in_transaction(self, queue: str, persistent: bool) -> None:
        one = Sent(next(self.numbers), queue, persistent=persistent)
        one.place = Place.HELD
        self.sent[one.body] = one
        self.channels[2].published.append(one)
        self.client.publish(queue, b"%d" % one.body, persistent=persistent, channel=2)
        self.listen()

    @precondition(lambda self: self.transactional)
    @rule(commits=st.booleans())
    def end_transaction(self, commits: bool) -> None:
        channel = self.channels[2]
        answered, channel.answered = channel.answered, []
        published, channel.published = channel.published, []
        if commits:
            for one in published:
                one.place, one.turn = Place.READY, next(self.numbers)
            for one_by_one, requeue in answered:
                self.settle(one_by_one, requeue=requeue)
        else:
            for one_by_one, _ in answered:
                channel.owed = dict(sorted((channel.owed | one_by_one).items()))
            for one in published:
                one.place = Place.GONE
        self.client.client(Tx.Commit() if commits else Tx.Rollback(), channel=2)
        self.listen()
        self.stage.commit()
        self.stage.end_turn()
        for one in self.sent.values():
            one.was_written |= one.place is not Place.HELD
        self.listen()

    # Ends

    @rule(number=channels)
    def close_channel(self, number: int) -> None:
        self.end(number)
        self.client.client(Channel.Close(200, "bye", 0, 0), channel=number)
        self.listen()
        self.open(number)

    @rule(number=channels)
    def make_a_mistake(self, number: int) -> None:
        self.end(number)
        self.client.client(Basic.Ack(99_999), channel=number)
        assert any(isinstance(heard.said, Channel.Close) for heard in self.listen())
        self.client.client(Channel.CloseOk(), channel=number)
        self.open(number)

    @rule()
    def lose_the_connection(self) -> None:
        self.client.read_on()
        self.listen()
        for number in self.channels:
            self.end(number)
        self.client.lose()
        self.connect_again()

    def connect_again(self) -> None:
        self.stage.commits_at_once = True
        self.connect()
        self.stage.commits_at_once = False
        for one in self.sent.values():
            one.was_written |= one.place is not Place.HELD
        self.listen()

    def end(self, number: int) -> None:
        """End the channel: unacked messages are requeued, and everything else is forgotten."""
        channel = self.channels[number]
        self.channels[number] = ModelChannel()
        for one, _ in channel.all_owed():
            one.place = Place.READY
            one.failures += 1
        for one in channel.published:
            one.place = Place.GONE

    # The rest

    @rule(queue=queues)
    def purge(self, queue: str) -> None:
        ready = self.at(queue, Place.READY)
        self.publisher.client(Queue.Purge(queue=queue))
        self.stage.commit()
        for one in self.sent.values():
            one.was_written |= one.place is not Place.HELD
        answer, = [heard.said for heard in self.listen() if isinstance(heard.said, Queue.PurgeOk)]
        assert answer.message_count == len(ready)
        for one in ready:
            one.place = Place.GONE

    @rule(full=st.booleans())
    def fill_or_drain(self, full: bool) -> None:
        if full:
            self.client.stop_reading()
        else:
            self.client.read_on()
        self.listen()

    # What is heard

    def listen(self) -> list[Heard]:
        """Take in all that the broker has said to both clients."""
        heard = self.publisher.hear_all() + self.client.hear_all()
        for one in heard:
            if isinstance(one.said, Basic.Ack):
                self.on_confirm(one.said)
            elif isinstance(one.said, Basic.Deliver):
                self.on_delivery(one)
        return heard

    def on_confirm(self, ack: Basic.Ack) -> None:
        assert ack.delivery_tag == self.confirmed + 1 or (ack.multiple and ack.delivery_tag > self.confirmed)
        for one in self.sequence[self.confirmed : ack.delivery_tag]:
            assert one.was_written or not one.must_survive, "confirmed before it was safe"
        self.confirmed = ack.delivery_tag

    def on_delivery(self, heard: Heard) -> None:
        assert isinstance(heard.said, Basic.Deliver)
        channel = self.channels[heard.channel]
        consumer = channel.consumers[str(heard.said.consumer_tag)]
        one = self.handed_out(heard, consumer, no_ack=consumer.no_ack)
        assert one.queue == consumer.queue
        if not consumer.no_ack:
            held = sum(other is consumer for _, other in channel.all_owed())
            assert held <= consumer.limit, "prefetch exceeded"
            assert not channel.shared_prefetch or channel.counted() <= channel.shared_prefetch, "shared limit exceeded"

    def handed_out(self, heard: Heard, consumer: ModelConsumer | None, *, no_ack: bool) -> Sent:
        said = heard.said
        assert isinstance(said, (Basic.Deliver, Basic.GetOk)) and heard.body is not None
        channel, one = self.channels[heard.channel], self.sent[int(heard.body)]
        assert one.place is Place.READY, "handed out, and not there to be"
        assert said.delivery_tag == channel.next_tag
        channel.next_tag += 1
        assert said.redelivered is bool(one.failures)
        headers = heard.properties.headers if heard.properties else None
        assert (headers or {}).get("x-delivery-count", 0) == one.failures
        if no_ack:
            one.place = Place.GONE
        else:
            one.place = Place.UNACKED
            channel.owed[said.delivery_tag] = one, consumer
        return one

    def at(self, queue: str, place: Place) -> list[Sent]:
        return [one for one in self.sent.values() if one.queue == queue and one.place is place]

    # What always holds

    @invariant()
    def the_stage_is_in_order(self) -> None:
        if hasattr(self, "stage"):
            self.stage.check()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        if not hasattr(self, "stage"):
            return
        for name, queue in self.stage.broker.vhosts["/"].queues.items():
            kept = self.stage.journal.now.messages.get(queue.definition.number, {})
            messages = kept | {message.number: message for message in queue.ready}
            found = [int(messages[number].body) for number in queue.ready.numbers()]
            assert sorted(found) == sorted(one.body for one in self.at(name, Place.READY))
            assert queue.unacked == len(self.at(name, Place.UNACKED))


TestChannelMachine = ChannelMachine.TestCase
