"""Very many messages are requeued in any order: the steps of each slice."""

from __future__ import annotations

import importlib

from tests.growth.counting import COUNTER, rewritten_broker

COUNT = 30_000
MOST_STEPS = 30         # for each message of a piece


def test_very_many_that_go_back_are_not_put_in_order_at_once() -> None:
    with rewritten_broker():
        queue_module = importlib.import_module("amqpd.broker.queue.queue")
        samples = importlib.import_module("tests.support.samples")
        journals = importlib.import_module("tests.support.journals")
    piece = importlib.import_module("amqpd.broker.worklist").PIECE
    queue = queue_module.Queue(samples.queue_definition(), journals.RefusingJournal())
    run = samples.messages(*range(1, COUNT + 1))
    queue.publish(run)
    for _ in run:
        queue.get(no_ack=False)
    queue.requeue(run[::7] + [one for place, one in enumerate(run) if place % 7][::-1])
    while queue.jobs.has_work:
        before = COUNTER.steps
        queue.jobs.work()
        assert COUNTER.steps - before < MOST_STEPS * piece
    assert [one.number for one in queue.ready] == [*range(1, COUNT + 1)]
