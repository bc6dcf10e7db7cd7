"""Forged histories about order, answers, time, dead letters, definitions, and recovery after faults."""

from __future__ import annotations

from tests.history.forgery import EXPIRED, REJECTED, breaks
from tests.history.story import Story


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


@breaks(19)
def declared_and_gone(story: Story) -> None:
    story.declare("jobs")
    story.restart()
    story.note("fail", "see", kind="queue", name="jobs")


@breaks(19)
def deleted_and_back(story: Story) -> None:
    for act, kind, name in (
            ("declare", "exchange", "shop"), ("bind", "binding", "shop -> jobs"), ("delete", "exchange", "shop")):
        story.note("invoke", act, kind=kind, name=name)
        story.note("ok", act, kind=kind, name=name)
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
