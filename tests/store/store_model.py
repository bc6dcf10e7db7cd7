"""Journal and store against a plain model, with commits, clean stops and crashes as steps, for any engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from amqpd.broker.definitions import Defined, Deleted, QueueDefinition, VhostDefinition
from amqpd.message import Message
from amqpd.store.journal import Journal
from amqpd.store.rows.message_blocks import BlockLimits
from tests.store.store_samples import contents, load, message, queue, settle

VHOSTS = ["/", "other"]
SIZES = st.sampled_from([0, 1, 300])        # of a body, in copies of its message's number
# So that many steps meet the ends of blocks.
SHORT_BLOCKS = BlockLimits(fewest=2, span=24, most_bytes=2_000)
ROWS = """
    SELECT queue, number, expires_at, deliveries FROM message_rows WHERE queue IS NOT NULL
    UNION ALL SELECT queue, number, expires_at, deliveries FROM entries
    UNION ALL SELECT queue, number, NULL, 0 FROM block_heads ORDER BY 1, 2"""
EXPIRIES = st.none() | st.integers(0, (1 << 62) - 1)


class Held(NamedTuple):
    """A message in a queue."""

    message: Message
    expires_at: int | None
    deliveries: int = 0


State = dict[int, dict[int, Held]]      # what each queue holds


class StoreModel(RuleBasedStateMachine):
    """`live` is the state of the broker, `safe` that of the last commit; a crash replaces the first by the second.

    A subclass has the store of an engine.
    """

    def __init__(self) -> None:
        super().__init__()
        self.definitions: dict[int, QueueDefinition] = {}
        self.safe_definitions: dict[int, QueueDefinition] = {}
        self.live: State = {}
        self.safe: State = {}
        self.delivered: dict[int, set[int]] = {}        # as a clean stop tells
        self.marked: dict[int, set[int]] = {}       # as the last one told
        self.watermarks: dict[int, int] = {}
        self.safe_watermarks: dict[int, int] = {}
        self.given: set[int] = set()
        self.open()

    def open_store(self) -> Any:
        """Return the store, opened."""
        raise NotImplementedError

    def kill(self) -> None:
        """End the store as if the process had been killed."""
        raise NotImplementedError

    def rows(self) -> list[tuple[Any, ...]]:
        """Return queue, number, expiry and delivery count of each message in each queue."""
        raise NotImplementedError

    def open(self) -> None:
        self.store = self.open_store()
        self.journal = Journal()
        self.next_number = self.store.first_number
        assert not self.given or self.next_number > max(self.given), "a number might be used twice"
        self.recovered = load(self.store)

    def take_number(self) -> int:
        self.next_number += 1
        self.given.add(self.next_number)
        return self.next_number

    def save(self) -> None:
        self.store.commit(self.journal.take())
        self.remember()

    def remember(self) -> None:
        self.safe = {number: dict(held) for number, held in self.live.items()}
        self.safe_definitions = dict(self.definitions)
        self.safe_watermarks = dict(self.watermarks)

    # Steps

    @initialize(data=st.data())
    def begin(self, data):
        for vhost in VHOSTS * 2:
            self.declare(vhost)
        for size in (0, 1, 300):
            self.publish_somewhere(data, 5, size)

    @rule(vhost=st.sampled_from(VHOSTS))
    def declare(self, vhost):
        number = self.take_number()
        self.definitions[number] = queue(number, vhost=vhost)
        self.live[number], self.delivered[number] = {}, set()
        self.journal.changed(Defined(self.definitions[number]))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 20), size=SIZES)
    def publish(self, data, count, size):
        self.publish_somewhere(data, count, size)

    def publish_somewhere(self, data, count: int, size: int) -> None:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.live)), min_size=1, max_size=3, unique=True))
        holders = len(numbers) if len(numbers) > 1 else 0
        run = [message(n, b"%d" % n * size, holders=holders) for n in (self.take_number() for _ in range(count))]
        for number in numbers:
            ends = data.draw(EXPIRIES), data.draw(EXPIRIES)
            expiries = {m.number: end for m, end in zip((run[0], run[-1]), ends) if end is not None}
            self.journal.published(self.definitions[number], run, expiries or None)
            self.live[number].update((m.number, Held(m, expiries.get(m.number))) for m in run)

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data())
    def deliver(self, data):
        number, run = self.some_of_a_queue(data)
        self.delivered[number].update(m.number for m in run)

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data())
    def watermark(self, data):
        number, run = self.some_of_a_queue(data)
        self.watermarks[number] = max(run[-1].number, self.watermarks.get(number, 0))
        self.journal.watermark_raised(self.definitions[number], self.watermarks[number])

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data(), more=st.integers(1, 3))
    def requeue(self, data, more):
        number, run = self.some_of_a_queue(data)
        held = self.live[number]
        held.update((m.number, held[m.number]._replace(deliveries=held[m.number].deliveries + more)) for m in run)
        self.delivered[number].update(m.number for m in run)
        self.journal.requeued(self.definitions[number], {m.number: held[m.number].deliveries for m in run})

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data())
    def settle(self, data):
        number, run = self.some_of_a_queue(data)
        settle(self.journal, self.definitions[number], run)
        for m in run:
            del self.live[number][m.number]

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data(), size=SIZES)
    def dead_letter(self, data, size):
        """Dead-letter messages to other queues or to the same one, in one batch."""
        number, run = self.some_of_a_queue(data)
        settle(self.journal, self.definitions[number], run)
        for m in run:
            del self.live[number][m.number]
        self.publish_somewhere(data, len(run), size)

    def some_of_a_queue(self, data) -> tuple[int, list[Message]]:
        number = data.draw(st.sampled_from([number for number, held in self.live.items() if held]))
        held = [held.message for held in self.live[number].values()]
        first, step = data.draw(st.integers(0, len(held) - 1)), data.draw(st.integers(1, 3))
        return number, held[first::step][: data.draw(st.integers(1, 30))]

    # Enough queues are left for the other steps to have something to do.

    @precondition(lambda self: len(self.live) > 2)
    @rule(data=st.data())
    def delete_queue(self, data):
        number = data.draw(st.sampled_from(sorted(self.live)))
        self.journal.changed(Deleted(self.definitions[number]))
        self.forget(number)

    @precondition(lambda self: len(self.live) > 3)
    @rule(vhost=st.sampled_from(VHOSTS))
    def delete_vhost(self, vhost):
        self.journal.changed(Deleted(VhostDefinition(vhost)))
        for number in [number for number, definition in self.definitions.items() if definition.vhost == vhost]:
            self.forget(number)

    def forget(self, number: int) -> None:
        del self.live[number], self.definitions[number], self.delivered[number]

    @rule()
    def commit(self):
        self.save()
        self.look()

    def look(self) -> None:
        """See that the rows are what was committed."""
        self.store.check()
        assert self.rows() == [
            (queue, number, held.expires_at, held.deliveries)
            for queue, messages in sorted(self.safe.items()) for number, held in sorted(messages.items())]

    @precondition(lambda self: any(self.safe.values()))
    @rule(data=st.data())
    def fetch(self, data):
        held = data.draw(st.sampled_from([held for held in self.safe.values() if held]))
        first, step = data.draw(st.integers(0, len(held) - 1)), data.draw(st.integers(1, 3))
        numbers = sorted(held)[first::step]
        assert contents(self.store.fetch(numbers)) == contents([held[number].message for number in numbers])

    @rule()
    def stop_and_start(self):
        self.save()
        told = {number: numbers & self.live[number].keys() for number, numbers in self.delivered.items()}
        self.store.close(told)
        self.marked, self.watermarks, self.safe_watermarks = told, {}, {}
        self.open()
        assert self.recovered.redelivered == told
        self.compare()

    @rule()
    def crash_and_start(self):
        self.kill()
        self.open()
        self.live = {number: dict(held) for number, held in self.safe.items()}
        self.definitions = dict(self.safe_definitions)
        self.watermarks = dict(self.safe_watermarks)
        self.delivered = {
            number: {one for one in held if one in self.marked.get(number, ()) or one <= self.watermarks.get(number, 0)}
            for number, held in self.live.items()}
        assert self.recovered.redelivered == self.delivered
        self.compare()

    def compare(self) -> None:
        found = self.recovered
        assert found.damaged == 0
        assert [d for d in found.definitions if isinstance(d, QueueDefinition)] == list(self.definitions.values())
        assert {number: contents(run) for number, run in found.messages.items()} == {
            number: contents([held.message for held in messages.values()]) for number, messages in self.live.items()}
        assert found.expiries == self.known(lambda held: held.expires_at)
        assert found.deliveries == self.known(lambda held: held.deliveries or None)
        self.store.check()

    def known(self, value_of: Callable[[Held], int | None]) -> dict[int, dict[int, int]]:
        """The values of those messages that have one, by queue and number."""
        values = {
            queue: {number: value for number, held in messages.items() if (value := value_of(held)) is not None}
            for queue, messages in self.live.items()}
        return {queue: of_queue for queue, of_queue in values.items() if of_queue}

    @invariant()
    def the_batch_is_in_order(self):
        self.journal.filling.check()
