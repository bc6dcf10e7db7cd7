"""Forged histories about single messages: lost, altered, duplicated, or delivered after the ack."""

from __future__ import annotations

from tests.history.forgery import breaks
from tests.history.story import Story


@breaks(1)
def confirmed_and_never_seen(story: Story) -> None:
    story.connect().publish("jobs")
    story.restart()
    story.drain("jobs")


@breaks(1)
def confirmed_and_missing_from_one_of_two_queues(story: Story) -> None:
    id = story.connect().publish("left", "right")
    taker = story.connect()
    taker.consume("left")
    taker.take(id, "left")


@breaks(1)
def given_back_and_never_seen_again(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.deliver(id, "jobs")
    taker.nack(id, requeue=True)
    taker.close()


@breaks(1)
def seen_after_a_restart_and_gone_with_the_next(story: Story) -> None:
    id = story.connect().publish("jobs", confirmed=False)
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.deliver(id, "jobs", redelivered=True)
    taker.close()
    story.restart()


@breaks(1)
def missing_after_a_restart_and_back_after_the_next(story: Story) -> None:
    id = story.connect().publish("jobs")
    for is_there in (False, True):
        story.restart()
        taker = story.connect()
        taker.note("ok", "count", queue="jobs", count=int(is_there), is_at_rest=True)
        taker.consume("jobs")
        if is_there:
            taker.take(id, "jobs", redelivered=True)


@breaks(2)
def never_published(story: Story) -> None:
    taker = story.connect()
    taker.consume("jobs")
    taker.deliver("nobody/1/1", "jobs")


@breaks(2)
def altered(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", sha="other")


@breaks(2)
def properties_altered(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", head="other")


@breaks(2)
def in_a_queue_it_was_not_routed_to(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.consume("others")
    taker.take(id, "jobs")
    taker.take(id, "others")


@breaks(3)
def nacked_and_there(story: Story) -> None:
    publisher = story.connect()
    id = publisher.publish("jobs", confirmed=False)
    publisher.refuse(1)
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")


@breaks(4)
def there_twice(story: Story) -> None:
    id = story.connect().publish("jobs")
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.deliver(id, "jobs", redelivered=True)
    taker.deliver(id, "jobs", redelivered=True)


@breaks(5)
def with_two_at_once(story: Story) -> None:
    id = story.connect().publish("jobs")
    for redelivered in (False, True):
        taker = story.connect()
        taker.consume("jobs")
        taker.deliver(id, "jobs", redelivered=redelivered)


@breaks(6)
def twice_for_the_first_time(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.deliver(id, "jobs")
    taker.nack(id, requeue=True)
    taker.take(id, "jobs")


@breaks(6)
def for_the_first_time_after_a_restart(story: Story) -> None:
    id = story.connect().publish("jobs")
    for _ in range(2):
        taker = story.connect()
        taker.consume("jobs")
        taker.deliver(id, "jobs")
        story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)


@breaks(7)
def rejected_and_there_again(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.deliver(id, "jobs")
    taker.nack(id)
    taker.take(id, "jobs", redelivered=True)


@breaks(7)
def sent_without_a_need_for_an_answer_and_again(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs", no_ack=True)
    taker.deliver(id, "jobs", no_ack=True)
    taker.deliver(id, "jobs", no_ack=True, redelivered=True)


@breaks(8)
def acked_and_there_again(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")
    taker.take(id, "jobs", redelivered=True)


@breaks(8)
def acked_long_before_a_crash_and_there_again(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")
    taker.ask()
    story.wait(3)
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)


@breaks(8)
def acked_before_a_confirmed_publish_and_there_again(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")
    receipt = taker.publish("jobs")
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)
    taker.take(receipt, "jobs", redelivered=True)


@breaks(8)
def acked_before_a_publish_that_was_confirmed_with_one_queue_s_ack(story: Story) -> None:
    an_ack_undone_beside_a_receipt(story, ("receipts", "notes"))


def an_ack_undone_beside_a_receipt(story: Story, to: tuple[str, ...]) -> None:
    """A job is acked, its receipt is taken over and then confirmed, and after a crash the job is there again."""
    id = story.connect().publish("jobs")
    taker, clerk = story.connect(), story.connect()
    taker.consume("jobs")
    clerk.consume("receipts")
    taker.take(id, "jobs")
    receipt = taker.publish(*to, confirmed=False)
    clerk.take(receipt, "receipts")
    taker.confirm(taker.published)
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)
    for queue in to[1:]:
        taker.consume(queue)
        taker.take(receipt, queue, redelivered=True)


@breaks(8)
def acked_before_a_clean_stop_and_there_again(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")
    taker.close()
    story.stop()
    story.start()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)


@breaks(20)
def transient_and_there_after_a_restart(story: Story) -> None:
    id = story.connect().publish("jobs", persistent=False)
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)


@breaks(20)
def a_transient_queue_there_after_a_restart(story: Story) -> None:
    story.declare("notes", durable=False)
    story.restart()
    story.note("ok", "see", kind="queue", name="notes")


@breaks(21)
def half_a_transaction(story: Story) -> None:
    publisher = story.connect()
    for queue in ("left", "right"):
        publisher.publish(queue, confirmed=False, in_tx=True)
    publisher.note("invoke", "commit")
    story.restart()
    taker = story.connect()
    taker.consume("left")
    taker.take("client 1/1/1", "left", redelivered=True)


@breaks(21)
def rolled_back_and_there(story: Story) -> None:
    publisher = story.connect()
    id = publisher.publish("jobs", confirmed=False, in_tx=True)
    for type in ("invoke", "ok"):
        publisher.note(type, "rollback")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")


@breaks(21)
def an_ack_of_a_transaction_undone(story: Story) -> None:
    id = story.connect().publish("jobs")
    worker = story.connect()
    worker.consume("jobs")
    worker.deliver(id, "jobs")
    worker.ack(id, in_tx=True)
    for type in ("invoke", "ok"):
        worker.note(type, "commit")
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)
