"""The books of the crash tests, tested with forged histories: each breaks one promise and is named by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.crash.ledger import Definitions, Ledger, Publish, Seen, Standing, Violations, without

QUEUE = ("queue", "orders")
BINDING = ("binding", "shop", "orders")


class Story:
    """A ledger, with words for what happens."""

    def __init__(self) -> None:
        self.violations = Violations()
        self.ledger = Ledger(self.violations)

    @property
    def kinds(self) -> set[str]:
        return set(self.violations.counts)

    def publish(self, *queues: str, confirmed: bool = True, persistent: bool = True) -> int:
        id = self.ledger.next_id()
        standings = dict.fromkeys(queues or ("left",), Standing.UNCERTAIN)
        self.ledger.published(Publish(id, "publisher", digest(id), persistent, standings))
        if confirmed:
            self.ledger.confirmed([id])
        return id

    def deliver(self, id: int, *, queue: str = "left", redelivered: bool = False) -> None:
        self.ledger.delivered(queue, Seen(id, redelivered, digest(id)))

    def answer(self, id: int, *, proved: bool = False) -> None:
        self.ledger.settling("left", [id])
        if proved:
            self.ledger.settled("left", [id])

    def restart(self, *left: int, right: tuple[int, ...] = ()) -> None:
        self.ledger.recovered({
            queue: [Seen(id, True, digest(id)) for id in ids] for queue, ids in (("left", left), ("right", right))})


def digest(id: int) -> bytes:
    return id.to_bytes(16, "big")


@pytest.fixture
def story() -> Story:
    return Story()


# What is in order

def test_a_message_of_any_standing_may_be_there_after_a_restart(story: Story) -> None:
    confirmed, uncertain, answered = story.publish(), story.publish(confirmed=False), story.publish()
    story.answer(answered)
    story.restart(confirmed, uncertain, answered)
    assert not story.kinds
    assert story.ledger.left == 3


def test_what_is_uncertain_or_answered_or_transient_may_be_missing_after_a_restart(story: Story) -> None:
    story.publish(confirmed=False)
    story.answer(story.publish())
    story.publish(persistent=False)
    story.restart()
    assert not story.kinds
    assert not story.ledger.left


def test_a_message_answered_in_one_of_its_queues_may_be_in_the_other_alone(story: Story) -> None:
    id = story.publish("left", "right", confirmed=False)
    story.answer(id)
    story.restart(right=(id,))
    assert not story.kinds


def test_what_was_in_a_deleted_queue_may_be_missing(story: Story) -> None:
    story.publish()
    story.ledger.dropped("left")
    story.restart()
    assert not story.kinds


def test_an_answer_may_be_lost_while_the_broker_stops(story: Story) -> None:
    id = story.publish()
    story.answer(id)
    story.ledger.delivered("left", Seen(id, True, digest(id)), is_stopping=True)
    assert not story.kinds


# What is not

def confirmed_and_missing(story: Story) -> None:
    story.publish()
    story.restart()


def confirmed_and_missing_from_one_queue(story: Story) -> None:
    id = story.publish("left", "right")
    story.restart(id)


def found_once_and_missing_later(story: Story) -> None:
    id = story.publish(confirmed=False)
    story.restart(id)
    story.restart()


def unknown_after_a_restart(story: Story) -> None:
    story.restart(7)


def unknown_in_a_delivery(story: Story) -> None:
    story.deliver(7)


def in_a_queue_it_was_not_routed_to(story: Story) -> None:
    id = story.publish("left")
    story.restart(id, right=(id,))


def there_twice(story: Story) -> None:
    id = story.publish()
    story.restart(id, id)


def in_another_order(story: Story) -> None:
    first, second = story.publish(), story.publish()
    story.restart(second, first)


def uncertain_and_in_one_of_two_queues(story: Story) -> None:
    id = story.publish("left", "right", confirmed=False)
    story.restart(id)


def transient_and_there(story: Story) -> None:
    story.restart(story.publish(persistent=False))


def answered_for_sure_and_back(story: Story) -> None:
    id = story.publish("left", "right")
    story.answer(id, proved=True)
    story.restart(id, right=(id,))


def answered_for_sure_and_back_later(story: Story) -> None:
    id = story.publish()
    story.answer(id, proved=True)
    story.restart()
    story.restart(id)


def missing_and_back_later(story: Story) -> None:
    id = story.publish(confirmed=False)
    story.restart()
    story.deliver(id)


def answered_and_delivered_without_a_restart(story: Story) -> None:
    id = story.publish()
    story.answer(id)
    story.deliver(id, redelivered=True)


def in_a_deleted_queue(story: Story) -> None:
    id = story.publish("left", "right")
    story.ledger.dropped("left")
    story.restart(id, right=(id,))


def delivered_twice_for_the_first_time(story: Story) -> None:
    id = story.publish()
    story.deliver(id)
    story.deliver(id)


def delivered_for_the_first_time_after_a_restart(story: Story) -> None:
    id = story.publish()
    story.restart(id)
    story.deliver(id)


def altered(story: Story) -> None:
    story.ledger.delivered("left", Seen(story.publish(), False, digest(0)))


@pytest.mark.parametrize(("history", "kind"), [
    (confirmed_and_missing, "lost"),
    (confirmed_and_missing_from_one_queue, "lost"),
    (found_once_and_missing_later, "lost"),
    (unknown_after_a_restart, "never published"),
    (unknown_in_a_delivery, "never published"),
    (in_a_queue_it_was_not_routed_to, "astray"),
    (there_twice, "twice"),
    (in_another_order, "order"),
    (uncertain_and_in_one_of_two_queues, "torn"),
    (transient_and_there, "transient"),
    (answered_for_sure_and_back, "came back"),
    (answered_for_sure_and_back_later, "came back"),
    (missing_and_back_later, "came back"),
    (answered_and_delivered_without_a_restart, "came back"),
    (in_a_deleted_queue, "came back"),
    (delivered_twice_for_the_first_time, "redelivered"),
    (delivered_for_the_first_time_after_a_restart, "redelivered"),
    (altered, "altered"),
])
def test_a_broken_promise_is_called_by_its_name(
    story: Story, history: Callable[[Story], None], kind: str
) -> None:
    history(story)
    assert story.kinds == {kind}


# Definitions

@pytest.fixture
def definitions() -> Definitions:
    """A queue bound to an exchange, all of it answered."""
    definitions = Definitions(Violations())
    for key in (QUEUE, ("exchange", "shop"), BINDING):
        definitions.done({key: True})
    return definitions


def kinds_after(definitions: Definitions, *found: tuple[str, ...]) -> int:
    definitions.recovered(set(found))
    return definitions.violations.counts["definition"]


def test_what_was_declared_and_answered_has_to_be_there(definitions: Definitions) -> None:
    assert kinds_after(definitions, ("exchange", "shop")) == 2


def test_what_was_deleted_and_answered_must_not_be_there_nor_its_bindings(definitions: Definitions) -> None:
    definitions.done(without(QUEUE, definitions))
    assert kinds_after(definitions, QUEUE, ("exchange", "shop"), BINDING) == 2


def test_what_was_asked_and_not_answered_may_be_either(definitions: Definitions) -> None:
    definitions.asked(without(("exchange", "shop"), definitions))
    assert kinds_after(definitions, QUEUE) == 0


def test_what_was_found_once_has_to_stay(definitions: Definitions) -> None:
    definitions.asked(without(("exchange", "shop"), definitions))
    definitions.recovered({QUEUE})
    assert kinds_after(definitions, QUEUE, BINDING) == 1
