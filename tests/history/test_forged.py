"""Forged histories: each breaks one line of the checker, and is named by that line's number and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.history import LINES, judge
from tests.history.__main__ import main
from tests.history.events import Death, History
from tests.history.story import Story

Forgery = Callable[[Story], None]
FORGERIES: list[tuple[int, Forgery]] = []
REJECTED, EXPIRED = Death("jobs", "rejected", 1), Death("jobs", "expired", 1)


def breaks(line: int) -> Callable[[Forgery], Forgery]:
    """Make a forgery known by the line that it breaks."""
    def known(forgery: Forgery) -> Forgery:
        FORGERIES.append((line, forgery))
        return forgery

    return known


# Each message

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


# Order

@breaks(9)
def in_another_order(story: Story) -> None:
    publisher = story.connect()
    first, second = publisher.publish("jobs"), publisher.publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(second, "jobs")
    taker.take(first, "jobs")


@breaks(10)
def behind_after_a_restart(story: Story) -> None:
    publisher = story.connect()
    first, second = publisher.publish("jobs"), publisher.publish("jobs")
    story.restart()
    taker = story.connect()
    taker.consume("jobs")
    taker.take(second, "jobs", redelivered=True)
    taker.take(first, "jobs", redelivered=True)


@breaks(10)
def given_back_to_the_end(story: Story) -> None:
    publisher = story.connect()
    first, second = publisher.publish("jobs"), publisher.publish("jobs")
    taker = story.connect()
    taker.consume("jobs", prefetch=1)
    taker.deliver(first, "jobs")
    taker.nack(first, requeue=True)
    taker.ask()
    taker.close()
    taker = story.connect()
    taker.consume("jobs", prefetch=1)
    taker.take(second, "jobs")
    taker.take(first, "jobs", redelivered=True)


@breaks(11)
def the_less_urgent_first(story: Story) -> None:
    story.declare("jobs", max_priority=5)
    publisher = story.connect()
    low, high = publisher.publish("jobs", priority=1), publisher.publish("jobs", priority=9)
    taker = story.connect()
    taker.consume("jobs")
    taker.take(low, "jobs")
    taker.take(high, "jobs")


# Publishers' answers

@breaks(12)
def confirmed_twice(story: Story) -> None:
    publisher = story.connect()
    publisher.publish(confirmed=True)
    publisher.confirm(1)


@breaks(12)
def confirmed_before_it_was_published(story: Story) -> None:
    publisher = story.connect()
    publisher.publish(confirmed=False)
    publisher.confirm(2)


@breaks(13)
def confirmed_before_it_came_back(story: Story) -> None:
    publisher = story.connect()
    id = publisher.publish(mandatory=True)
    publisher.note("info", "return", id=id)


@breaks(13)
def confirmed_and_never_came_back(story: Story) -> None:
    story.connect().publish(mandatory=True)


# Consumers

@breaks(14)
def a_delivery_tag_is_left_out(story: Story) -> None:
    publisher = story.connect()
    first, second = publisher.publish("jobs"), publisher.publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(first, "jobs")
    taker.tag += 1
    taker.take(second, "jobs")


@breaks(15)
def more_than_prefetch(story: Story) -> None:
    publisher = story.connect()
    ids = [publisher.publish("jobs") for _ in range(3)]
    taker = story.connect()
    taker.consume("jobs", prefetch=2)
    for id in ids:
        taker.deliver(id, "jobs")


# Time and death

@breaks(16)
def delivered_after_its_end(story: Story) -> None:
    id = story.connect().publish("jobs", ttl_ms=100)
    story.wait(1)
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")


@breaks(16)
def delivered_after_its_end_by_the_wall_clock(story: Story) -> None:
    id = story.connect().publish("jobs", ttl_ms=60_000)
    story.restart(shift_ms=3_600_000)
    story.wait(1)
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)


@breaks(16)
def expired_before_its_end(story: Story) -> None:
    story.declare("jobs", "dead", ttl_ms=5_000)
    id = story.connect().publish("jobs")
    story.wait(1)
    taker = story.connect()
    taker.consume("dead")
    taker.take(id, "dead", EXPIRED)


@breaks(16)
def gone_before_its_end(story: Story) -> None:
    story.connect().publish("jobs", ttl_ms=1_000)
    story.drain("jobs")
    story.wait(2)
    story.connect()


@breaks(17)
def rejected_and_not_in_every_target(story: Story) -> None:
    story.declare("jobs", "dead left", "dead right")
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.consume("dead left")
    taker.deliver(id, "jobs")
    taker.nack(id)
    taker.take(id, "dead left", REJECTED)


@breaks(17)
def dead_and_alive(story: Story) -> None:
    story.declare("jobs", "dead", ttl_ms=20)
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("dead")
    taker.consume("jobs")
    taker.deliver(id, "jobs")
    taker.nack(id)
    taker.ask()
    taker.take(id, "dead", REJECTED)
    story.restart()
    taker = story.connect()
    taker.consume("dead")
    taker.take(id, "dead", REJECTED, redelivered=True)
    taker.consume("jobs")
    taker.take(id, "jobs", redelivered=True)


@breaks(17)
def died_of_something_else(story: Story) -> None:
    story.declare("jobs", "dead", max_length=10)
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.consume("dead")
    taker.take(id, "dead", REJECTED)


@breaks(18)
def more_than_its_limit(story: Story) -> None:
    story.declare("jobs", max_length=1)
    publisher = story.connect()
    publisher.publish("jobs")
    publisher.publish("jobs")
    story.connect().note("ok", "count", queue="jobs", count=2)


# What there is

@breaks(19)
def declared_and_gone(story: Story) -> None:
    story.declare("jobs")
    story.restart()
    story.note("fail", "see", kind="queue", name="jobs")


@breaks(19)
def deleted_and_back(story: Story) -> None:
    for act, there in (("declare", True), ("delete", False)):
        for type in ("invoke", "ok"):
            story.note(type, act, kind="exchange", name="shop")
        if there:
            for type in ("invoke", "ok"):
                story.note(type, "bind", kind="binding", name="shop -> jobs")
    story.restart()
    story.note("ok", "see", kind="binding", name="shop -> jobs")


@breaks(19)
def purged_and_there(story: Story) -> None:
    id = story.connect().publish("jobs")
    for type in ("invoke", "ok"):
        story.note(type, "purge", kind="queue", name="jobs")
    taker = story.connect()
    taker.consume("jobs")
    taker.take(id, "jobs")


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


@breaks(22)
def two_active_consumers(story: Story) -> None:
    story.declare("jobs", single_active=True)
    publisher = story.connect()
    takers = [story.connect(), story.connect()]
    for taker in takers:
        taker.consume("jobs")
    for taker in takers:
        taker.take(publisher.publish("jobs"), "jobs")


@breaks(23)
def across_vhosts(story: Story) -> None:
    id = story.connect(vhost="/").publish("jobs")
    taker = story.connect(vhost="other")
    taker.consume("jobs")
    taker.take(id, "jobs")


@breaks(24)
def published_without_the_right(story: Story) -> None:
    story.note("ok", "grant", user="till", configure=".*", write="shop", read="orders")
    story.connect(user="till").publish(name="archive")


@breaks(24)
def read_long_after_the_right_was_taken(story: Story) -> None:
    id = story.connect().publish("jobs")
    story.note("ok", "grant", user="till", read=".*")
    story.note("ok", "grant", user="till", read="orders")
    taker = story.connect(user="till")
    story.wait(6)
    taker.consume("jobs")
    taker.take(id, "jobs")


@breaks(25)
def a_number_twice(story: Story) -> None:
    for _ in range(2):
        story.note("info", "number", kind="message", name="17")
        story.restart()


@breaks(26)
def a_count_that_is_wrong(story: Story) -> None:
    id = story.connect().publish("jobs")
    taker = story.connect()
    taker.note("ok", "count", queue="jobs", count=2, is_at_rest=True)
    taker.consume("jobs")
    taker.take(id, "jobs")


# After the last fault

@breaks(27)
def no_answer(story: Story) -> None:
    publisher = story.connect()
    story.note("invoke", "fault")
    story.note("ok", "fault")
    publisher.publish(confirmed=False)
    story.wait(6)
    publisher.ask()


@breaks(28)
def waiting_beside_an_idle_consumer(story: Story) -> None:
    taker = story.connect()
    taker.consume("jobs", prefetch=1)
    id = story.connect().publish("jobs")
    story.wait(2)
    taker.take(id, "jobs")


@breaks(29)
def a_drain_that_never_ends(story: Story) -> None:
    story.note("invoke", "drain", queue="jobs")


@breaks(30)
def blocked_for_ever(story: Story) -> None:
    publisher = story.connect()
    story.note("invoke", "alarm")
    publisher.note("info", "blocked")
    story.note("ok", "alarm")
    story.wait(3)
    publisher.ask()


@breaks(31)
def silent_and_still_there(story: Story) -> None:
    dead = story.connect(heartbeat_s=1.0)
    dead.note("info", "silence")
    story.wait(3)
    story.connect()


def test_every_line_has_a_forgery() -> None:
    assert {line for line, _ in FORGERIES} == set(LINES) == set(range(1, 32))


@pytest.mark.parametrize(("line", "forgery"), FORGERIES, ids=[forgery.__name__ for _, forgery in FORGERIES])
def test_a_forged_history_is_named_by_its_line(line: int, forgery: Forgery) -> None:
    story = Story()
    forgery(story)
    assert {finding.line for finding in judge(story.events)} == {line}


# The program

def write(path: Path, story: Story) -> Path:
    history = History(path)
    history.events = story.events
    history.flush()
    return path


def test_the_program_prints_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    confirmed_and_never_seen(story)
    assert main([str(write(tmp_path / "history", story))]) == 1
    said = capsys.readouterr().out.splitlines()
    words = "1 confirmed is delivered, per queue of its route: client 1/1/1 is lost from queue 'jobs'"
    assert said[0].startswith(words)
    assert said[1] == f"{len(story.events)} events, 1 findings"


def test_the_program_has_nothing_against_a_sound_history(tmp_path: Path) -> None:
    assert main([str(write(tmp_path / "history", Story()))]) == 0


@pytest.mark.parametrize("text", [None, "{}\n", "nonsense\n"])
def test_the_program_says_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = tmp_path / "history"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 66
    assert str(path) in capsys.readouterr().err
