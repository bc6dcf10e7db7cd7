"""A broker with much of one thing, and every operation on it, counted.

Each builder in `WORLDS` puts `n` of one thing into a world. `OPERATIONS` are run one after the other in every world, by
a client of its own; each restores the world as far as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue, Tx

from amqpd.broker.definitions import PermissionDefinition, PolicyDefinition, UserDefinition, VhostDefinition
from amqpd.broker.queue.page_limits import PageLimits
from tests.growth.counting import COUNTER
from tests.support.talk import Stage, Talk

NAMES = "q", "d", "e"       # the queues of the operations: a plain one, a durable one, and one that is empty
CONFIRMING, TRANSACTION, OTHER = 2, 3, 4        # channels; operations use 1 where nothing else is said
PAGE = 16               # messages of a page: small, so that there can be many pages


class Quiet(Stage):
    """A stage that does not check the invariants after each step."""

    def check(self) -> None:
        """Do nothing: the other tests do."""


class World:
    """A broker, the client that does the operations, and another one that has what there is much of."""

    def __init__(self) -> None:
        self.stage = Quiet(page_limits=PageLimits(messages=PAGE, fewest_messages=4))
        self.vhost = self.stage.broker.vhosts["/"]
        self.talk = self.stage.client()
        self.other = self.stage.client("bob").open_channel()
        self.steps: dict[str, int] = {}
        for number in (1, CONFIRMING, TRANSACTION, OTHER):
            self.talk.open_channel(number)
        self.say(Confirm.Select(), channel=CONFIRMING)
        self.say(Tx.Select(), channel=TRANSACTION)
        for name in NAMES:
            self.say(Queue.Declare(queue=name, durable=name == "d"))
        for exchange, kind in (("direct", "direct"), ("fanout", "fanout"), ("topic", "topic"), ("headers", "headers")):
            self.say(Exchange.Declare(exchange=exchange, exchange_type=kind))

    def say(self, *methods: Any, channel: int = 1, talk: Talk | None = None) -> list[Any]:
        """Send methods, and return all answers."""
        talk = talk or self.talk
        talk.client(*methods, channel=channel)
        heard = [one.said for one in talk.hear_all()]
        assert not any(isinstance(one, (Channel.Close, Connection.Close)) for one in heard), heard
        return heard

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Count the steps of an operation."""
        before = COUNTER.steps
        yield
        self.steps[name] = COUNTER.steps - before

    def get(self, queue: str = "q", channel: int = 1) -> int:
        """Get a message, and return its tag; 0 if the queue is empty."""
        heard, = self.say(Basic.Get(queue=queue), channel=channel)
        return heard.delivery_tag if isinstance(heard, Basic.GetOk) else 0

    def publish(self, queue: str, *bodies: bytes, channel: int = 1, **how: Any) -> None:
        """Publish, and ignore the answers."""
        self.talk.publish(queue, *bodies, channel=channel, **how)
        self.talk.hear_all()
        self.other.hear_all()


# What there is much of

def queues(world: World, n: int) -> None:
    for number in range(n):
        world.say(Queue.Declare(queue=f"q{number}"), talk=world.other)


def durable_queues(world: World, n: int) -> None:
    for number in range(n):
        world.say(Queue.Declare(queue=f"q{number}", durable=True), talk=world.other)


def exclusive_queues(world: World, n: int) -> None:
    for number in range(n):
        world.say(Queue.Declare(queue=f"q{number}", exclusive=True), talk=world.other)


def queues_that_expire(world: World, n: int) -> None:
    for number in range(n):
        world.say(Queue.Declare(queue=f"q{number}", arguments={"x-expires": 10_000_000 + number}), talk=world.other)


def queues_with_messages(world: World, n: int) -> None:
    for number in range(n):
        world.say(Queue.Declare(queue=f"q{number}", arguments={"x-message-ttl": 10_000_000}))
        world.publish(f"q{number}", b"x")


def exchanges(world: World, n: int) -> None:
    for number in range(n):
        world.say(Exchange.Declare(exchange=f"e{number}"))


def _bind(world: World, n: int, exchange: str, queue: str = "b", **arguments: Any) -> None:
    world.say(Queue.Declare(queue=queue))
    for number in range(n):
        world.say(Queue.Bind(
            queue=queue, exchange=exchange, routing_key=f"key.{number}.x",
            arguments={name: f"{value}{number}" for name, value in arguments.items()}))


def bindings_of_a_direct_exchange(world: World, n: int) -> None:
    _bind(world, n, "direct")


def bindings_of_a_topic_exchange(world: World, n: int) -> None:
    _bind(world, n, "topic")


def bindings_of_a_headers_exchange(world: World, n: int) -> None:
    _bind(world, n, "headers", header="value")


def bindings_of_a_queue(world: World, n: int) -> None:
    _bind(world, n, "direct", "q")


def bindings_of_a_fanout_exchange(world: World, n: int) -> None:
    for number in range(n):
        world.say(Queue.Declare(queue=f"q{number}"), Queue.Bind(queue=f"q{number}", exchange="fanout"))


def consumers_without_credit(world: World, n: int) -> None:
    world.say(Basic.Qos(prefetch_count=1), talk=world.other)
    for _ in range(n):
        world.say(Basic.Consume(queue="q"), talk=world.other)
    world.publish("q", *[b"x"] * (n + 1))       # the last one finds nobody


def arguments(world: World, n: int) -> None:
    """Of queues, an exchange and a consumer, together with one that would have to be decoded, were it looked at."""
    many = {"x-unknown": {}, **{f"{number:0>100}": None for number in range(n)}}
    for name in NAMES:
        world.say(Queue.Delete(queue=name), Queue.Declare(queue=name, durable=name == "d", arguments=many))
    world.say(Exchange.Delete(exchange="direct"), Exchange.Declare(exchange="direct", arguments=many))
    world.say(Basic.Qos(prefetch_count=1), talk=world.other)
    world.say(Basic.Consume(queue="q", arguments=many), talk=world.other)
    world.publish("q", b"x", b"x")      # the last one finds nobody


def idle_consumers(world: World, n: int) -> None:
    for _ in range(n):
        world.say(Basic.Consume(queue="q", no_ack=True), talk=world.other)


def consumers_of_many_priorities(world: World, n: int) -> None:
    for number in range(n):
        world.say(Basic.Consume(queue="q", no_ack=True, arguments={"x-priority": number}), talk=world.other)


def consumers_of_a_client_that_does_not_read(world: World, n: int) -> None:
    for _ in range(n):
        world.say(Basic.Consume(queue="q", no_ack=True), talk=world.other)
    world.other.stop_reading()
    world.publish("q", b"x", b"x")


def waiting_consumers_of_a_single_active_queue(world: World, n: int) -> None:
    world.say(Queue.Delete(queue="q"))
    world.say(Queue.Declare(queue="q", arguments={"x-single-active-consumer": True}))
    for _ in range(n):
        world.say(Basic.Consume(queue="q", no_ack=True), talk=world.other)


def consumers_of_a_channel(world: World, n: int) -> None:
    queues(world, n)
    for number in range(n):
        world.say(Basic.Consume(queue=f"q{number}"))


def consumers_of_a_channel_with_a_shared_limit(world: World, n: int) -> None:
    world.say(Basic.Qos(prefetch_count=1, global_=True))
    for number in range(n):
        world.say(Queue.Declare(queue=f"q{number}"), Basic.Consume(queue=f"q{number}"))
        world.publish(f"q{number}", b"x", b"x")
    for number in range(n):
        world.say(Basic.Ack(number + 1))


def unacked_of_a_channel(world: World, n: int) -> None:
    world.publish("e", *[b"x"] * n)
    for _ in range(n):
        world.get("e")


def unacked_of_a_queue(world: World, n: int) -> None:
    world.publish("q", *[b"x"] * n)
    for _ in range(n):
        world.say(Basic.Get(queue="q"), talk=world.other)


def connections(world: World, n: int) -> None:
    for _ in range(n):
        world.stage.client().open_channel()


def channels(world: World, n: int) -> None:
    for number in range(10, 10 + n):
        world.talk.open_channel(number)


def channels_with_something_unacked(world: World, n: int) -> None:
    world.publish("e", *[b"x"] * n)
    for number in range(10, 10 + n):
        world.talk.open_channel(number)
        world.get("e", channel=number)


def users(world: World, n: int) -> None:
    for number in range(n):
        world.stage.broker.users.add(UserDefinition(f"user {number}"))
        world.stage.broker.users.set_permissions(PermissionDefinition(f"user {number}", "/", ".*", ".*", ".*"))


def vhosts(world: World, n: int) -> None:
    for number in range(n):
        world.stage.broker.add_vhost(VhostDefinition(f"v{number}"))
        world.stage.broker.users.set_permissions(PermissionDefinition("guest", f"v{number}", ".*", ".*", ".*"))


def policies(world: World, n: int) -> None:
    for number in range(n):
        world.vhost.followers.set_policy(PolicyDefinition("/", f"p{number}", f"^none{number}$", {"max-length": 5}))
    world.stage.broker.worklist.work_off()


def queues_and_policies(world: World, n: int) -> None:
    """A change that holds each queue against each policy is quadratic here."""
    queues(world, n)
    policies(world, n)


def waiting(world: World, n: int) -> None:
    world.publish("q", *[b"x"] * n)


def waiting_with_gaps(world: World, n: int) -> None:
    """Let a message among the waiting ones expire, and one at their end; count the requeue of one at the head."""
    world.publish("q", b"x")
    world.say(Basic.Get(queue="q"), talk=world.other)
    world.publish("q", *[b"x"] * n)
    world.publish("q", b"x", properties=Basic.Properties(expiration="5"))
    world.publish("q", *[b"x"] * n)
    world.stage.now_ms += 10
    world.stage.broker.clock.advance(world.stage.now_ms)
    world.publish("q", b"x", properties=Basic.Properties(expiration="0"))
    world.stage.end_turn()
    assert len(world.vhost.queues["q"].ready) == 2 * n
    with world.counted("nack of one before gaps"):
        world.say(Basic.Nack(1, False, True), talk=world.other)


def waiting_that_were_given_back_from_the_first(world: World, n: int) -> None:
    world.publish("q", *[b"x"] * (n + 3))
    for _ in range(n + 2):
        world.say(Basic.Get(queue="q"), talk=world.other)
    for tag in range(1, n + 1):
        world.say(Basic.Nack(tag, False, True), talk=world.other)
    with world.counted("nack of the next"):
        world.say(Basic.Nack(n + 1, False, True), talk=world.other)


def refused_publishes(world: World, n: int) -> None:
    world.say(Queue.Delete(queue="q"))
    world.say(Queue.Declare(queue="q", arguments={"x-max-length-bytes": 1, "x-overflow": "reject-publish"}))
    with world.counted("publish of all that is refused"):
        world.publish("q", *[b"xx"] * 8 * n)
    world.say(Queue.Delete(queue="q"))
    world.say(Queue.Declare(queue="q"))


def waiting_that_expire(world: World, n: int) -> None:
    for number in range(n):
        world.publish("q", b"x", properties=Basic.Properties(expiration=str(10_000_000 + number)))


def waiting_with_priorities(world: World, n: int) -> None:
    world.say(Queue.Delete(queue="q"))
    world.say(Queue.Declare(queue="q", arguments={"x-max-priority": 10}))
    for number in range(n):
        world.publish("q", b"x", properties=Basic.Properties(priority=number % 10))


def waiting_on_disk(world: World, n: int) -> None:
    world.publish("d", *[bytes(1_000)] * PAGE * n, persistent=True)
    for _ in range(2):      # once that they go, once that it is noticed
        world.vhost.queues["d"].pager.page_out(1 << 40)


def waiting_on_disk_with_gaps_that_were_filled(world: World, n: int) -> None:
    """Every other message is given back between pages that have been made of the others."""
    count = 2 * n * PAGE
    world.publish("d", *[b"x"] * count, persistent=True)
    world.say(Basic.Consume(queue="d", consumer_tag="c"), talk=world.other)
    world.say(Basic.Cancel("c"), talk=world.other)
    world.other.client(*[Basic.Nack(tag, False, True) for tag in range(2, count + 1, 2)])
    world.vhost.queues["d"].pager.page_out(1 << 40)
    with world.counted("nack of all that goes between pages"):
        world.say(Basic.Nack(count - 1, True), talk=world.other)


def held_publishes_of_a_transaction(world: World, n: int) -> None:
    for _ in range(n):
        world.publish("e", b"x", channel=TRANSACTION)


def held_acks_of_a_transaction(world: World, n: int) -> None:
    world.publish("e", *[b"x"] * n)
    for _ in range(n):
        tag = world.get("e", channel=TRANSACTION)
        world.say(Basic.Ack(tag), channel=TRANSACTION)


def pending_confirms(world: World, n: int) -> None:
    world.stage.commits_at_once = False
    for _ in range(n):
        world.publish("d", b"x", persistent=True, channel=CONFIRMING)


WORLDS: dict[str, Callable[[World, int], None]] = {
    build.__name__: build for build in (
        queues, durable_queues, exclusive_queues, queues_that_expire, queues_with_messages, exchanges,
        bindings_of_a_direct_exchange, bindings_of_a_topic_exchange, bindings_of_a_headers_exchange,
        bindings_of_a_queue, bindings_of_a_fanout_exchange, consumers_without_credit, arguments, idle_consumers,
        consumers_of_many_priorities, consumers_of_a_client_that_does_not_read,
        waiting_consumers_of_a_single_active_queue, consumers_of_a_channel,
        consumers_of_a_channel_with_a_shared_limit, unacked_of_a_channel, unacked_of_a_queue, connections, channels,
        channels_with_something_unacked, users, vhosts, policies, queues_and_policies, waiting, waiting_with_gaps,
        waiting_that_were_given_back_from_the_first, refused_publishes, waiting_that_expire,
        waiting_with_priorities, waiting_on_disk, waiting_on_disk_with_gaps_that_were_filled,
        held_publishes_of_a_transaction, held_acks_of_a_transaction, pending_confirms)}


# What is done

def publish_and_take(world: World) -> None:
    with world.counted("publish"):
        world.publish("q", b"x")
    with world.counted("get"):
        tag = world.get()
    if tag:
        with world.counted("ack"):
            world.say(Basic.Ack(tag))


def publish_to_exchanges(world: World) -> None:
    for exchange in ("direct", "topic", "headers"):
        world.say(Queue.Bind(queue="e", exchange=exchange, routing_key="known", arguments={"k": "v"}))
        for name in (f"first publish to a {exchange} exchange", f"publish to a {exchange} exchange"):
            with world.counted(name):
                world.publish("known", b"x", exchange=exchange)
        with world.counted(f"unbind from a {exchange} exchange"):
            world.say(Queue.Unbind(queue="e", exchange=exchange, routing_key="known", arguments={"k": "v"}))
        with world.counted(f"bind to a {exchange} exchange"):
            world.say(Queue.Bind(queue="e", exchange=exchange, routing_key="known", arguments={"k": "v"}))
        world.say(Queue.Unbind(queue="e", exchange=exchange, routing_key="known", arguments={"k": "v"}))
        world.say(Queue.Purge(queue="e"))
    with world.counted("publish to a fanout exchange"):
        world.publish("", b"x", exchange="fanout")


def publish_confirmed(world: World) -> None:
    with world.counted("publish, persistent and confirmed"):
        world.publish("d", b"x", persistent=True, channel=CONFIRMING)
        world.stage.commit()
    world.talk.hear_all()
    world.stage.commits_at_once = True


def give_back(world: World) -> None:
    world.publish("q", b"x")
    if tag := world.get():
        with world.counted("nack, to be requeued"):
            world.say(Basic.Nack(tag, False, True))
    if tag := world.get():
        with world.counted("reject"):
            world.say(Basic.Reject(tag, False))


def consume(world: World) -> None:
    world.say(Basic.Qos(prefetch_count=1), channel=OTHER)
    with world.counted("consume"):
        world.say(Basic.Consume(queue="q", consumer_tag="c"), channel=OTHER)
    with world.counted("publish to a consumer"):
        world.publish("q", b"x")
    unacked = world.talk.session.channels[OTHER].consuming.unacked
    if unacked:
        with world.counted("ack of a consumer"):
            world.say(Basic.Ack(next(iter(unacked))), channel=OTHER)
    with world.counted("cancel"):
        world.say(Basic.Cancel("c"), channel=OTHER)
    for tag in list(unacked):
        world.say(Basic.Ack(tag), channel=OTHER)


def declare(world: World) -> None:
    for name, how in (("", {}), ("durable ", {"durable": True}), ("exclusive ", {"exclusive": True})):
        with world.counted(f"declare a {name}queue"):
            world.say(Queue.Declare(queue="new", **how))
        with world.counted(f"declare a {name}queue again"):
            world.say(Queue.Declare(queue="new", **how))
        with world.counted(f"delete a {name}queue"):
            world.say(Queue.Delete(queue="new"))
    with world.counted("purge an empty queue"):
        world.say(Queue.Purge(queue="e"))
    with world.counted("declare an exchange"):
        world.say(Exchange.Declare(exchange="new"))
    with world.counted("delete an exchange"):
        world.say(Exchange.Delete(exchange="new"))


def come_and_go(world: World) -> None:
    with world.counted("open a channel"):
        world.talk.open_channel(5)
    with world.counted("close a channel"):
        world.talk.close_channel(5)
    with world.counted("open a connection"):
        talk = world.stage.client()
    talk.open_channel()
    world.say(Queue.Declare(queue="mine", exclusive=True), talk=talk)
    with world.counted("close a connection with an exclusive queue"):
        talk.client(Connection.Close(200, "bye", 0, 0))
    talk = world.stage.client().open_channel()
    with world.counted("lose a connection"):
        talk.lose()
    del world.stage.talks[talk.session]


def transact(world: World) -> None:
    with world.counted("publish in a transaction"):
        world.publish("e", b"x", channel=TRANSACTION)
    with world.counted("rollback"):
        world.say(Tx.Rollback(), channel=TRANSACTION)
    world.publish("e", b"x", channel=TRANSACTION)
    with world.counted("commit"):
        world.say(Tx.Commit(), channel=TRANSACTION)
    world.say(Basic.Get(queue="e", no_ack=True))


def page_out(world: World) -> None:
    world.say(Basic.Get(queue="d"), channel=OTHER)
    tag = next(iter(world.talk.session.channels[OTHER].consuming.unacked), 0)
    if tag:
        with world.counted("nack of a message before pages"):
            world.say(Basic.Nack(tag, False, True), channel=OTHER)
    budget = world.stage.page_store.budget
    with world.counted("page out a little"):
        world.vhost.queues["d"].pager.page_out(1_000)
    assert budget.used >= 0


def let_die(world: World) -> None:
    world.say(Queue.Declare(queue="mortal", arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "e", "x-message-ttl": 500}))
    with world.counted("expire and dead-letter"):
        world.publish("mortal", b"x")
        world.stage.now_ms += 1_000
        world.stage.broker.clock.advance(world.stage.now_ms)
        world.stage.end_turn()
    world.say(Queue.Delete(queue="mortal"))
    world.say(Basic.Get(queue="e", no_ack=True))


def pass_time(world: World) -> None:
    sessions = list(world.stage.talks)
    world.stage.now_ms += 250
    with world.counted("a quarter of a second, for the clock"):
        world.stage.broker.clock.advance(world.stage.now_ms)
    world.talk.session.tick(world.stage.now_ms)
    world.stage.broker.worklist.work_off()          # what is due is looked at in a job
    with world.counted("a tick of a connection"):
        world.talk.session.tick(world.stage.now_ms)
        world.stage.broker.worklist.work_off()
    assert sessions


def look_at_memory(world: World) -> None:
    budget, clock = world.stage.page_store.budget, world.stage.broker.clock
    limit, budget.limit = budget.limit, -1
    clock.now_ms += 1_000
    world.stage.broker.page_out()
    clock.now_ms += 1_000
    with world.counted("look at what can be paged out"):
        world.stage.broker.page_out()
    budget.limit = limit


def administer(world: World) -> None:
    broker = world.stage.broker
    with world.counted("add a user with permissions"):
        broker.users.add(UserDefinition("new"))
        broker.users.set_permissions(PermissionDefinition("new", "/", ".*", ".*", ".*"))
    with world.counted("delete a user"):
        broker.users.delete("new")
    with world.counted("add a vhost"):
        broker.add_vhost(VhostDefinition("new"))
    with world.counted("delete a vhost"):
        broker.delete_vhost("new")
    with world.counted("set a policy"):
        world.vhost.followers.set_policy(PolicyDefinition("/", "new", "^none$", {"max-length": 5}))
        world.stage.broker.worklist.work_off()
    with world.counted("give three queues a policy"):
        world.vhost.followers.set_policy(PolicyDefinition("/", "other", "^[qde]$", {"max-length": 1_000_000}))
        world.stage.broker.worklist.work_off()
    world.vhost.followers.clear_policy("other")
    world.stage.broker.worklist.work_off()
    with world.counted("clear a policy"):
        world.vhost.followers.clear_policy("new")
        world.stage.broker.worklist.work_off()


OPERATIONS: list[Callable[[World], None]] = [
    publish_confirmed, publish_and_take, publish_to_exchanges, give_back, consume, declare, come_and_go, let_die,
    page_out, pass_time, look_at_memory, administer, transact]


def steps(world_of: str, n: int) -> dict[str, int]:
    """Return the steps of each operation in a world with so much of it."""
    world = World()
    WORLDS[world_of](world, n)
    world.talk.hear_all()
    for operation in OPERATIONS:
        operation(world)
    return world.steps
