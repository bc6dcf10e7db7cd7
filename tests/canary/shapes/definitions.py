"""Attacks that create, change and delete definitions quickly, and policies over very many queues."""

from __future__ import annotations

from conformance import methods
from tests.canary.packing import cancel, consume, exchange_declare, exchange_delete, queue_declare, queue_delete
from tests.canary.peer import batches
from tests.canary.shape import World, shape
from tests.canary.shapes.common import declare, fill
from tests.canary.shapes.crowds import declare_many


@shape("declare-and-delete", "sibling", memory_mib=60, in_ci=False)
def declare_and_delete(world: World) -> None:
    """Queues are declared and deleted as fast as can be, transient and durable in turn."""
    with world.peer() as peer:
        pair = b"".join(
            queue_declare(f"s{number}", durable=number % 2 == 0, nowait=True) + queue_delete(f"s{number}", nowait=True)
            for number in range(200))
        is_on, count = world.until_time_is_up(), 0
        while is_on():
            peer.send(pair)
            peer.sync()
            count += 200
    world.note(f"{count} queues")


@shape("declare-and-delete-exchanges", "sibling", memory_mib=60)
def exchanges(world: World) -> None:
    """The same with exchanges."""
    with world.peer() as peer:
        pair = b"".join(
            exchange_declare(f"s{number}", "topic") + exchange_delete(f"s{number}") for number in range(200))
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(pair)
            peer.sync()


@shape("declarations-of-nested-tables", "sibling", in_ci=False)
def nested_tables(world: World) -> None:
    """A queue is declared again and again with an argument of 120 KB that holds thousands of tables."""
    with world.peer() as peer:
        arguments = {"wide": {f"{number:04x}": [{}] * 20 for number in range(1_050)}}
        octets = queue_declare("nested", durable=True, arguments=arguments, nowait=True)
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(octets * 5)
            peer.sync()


LARGE: dict[str, object] = {"x-unknown": {}, **{f"{number:04x}": None for number in range(17_000)}}      # 117 KB


@shape("declarations-with-large-arguments", "sibling", in_ci=False)
def large_declarations(world: World) -> None:
    """Thirty durable queues at a time, each with 108 KB of arguments."""
    is_on, number = world.until_time_is_up(), 0
    arguments = {f"{at:04x}": "x" * 20 for at in range(3_600)}
    with world.peer() as peer:
        while is_on():
            peer.send(b"".join(queue_declare(
                f"large.{at}", arguments, durable=True, nowait=True) for at in range(number, number + 30))).sync()
            peer.send(b"".join(queue_delete(f"large.{at}", nowait=True) for at in range(number, number + 30))).sync()
            number += 30


@shape("consumers-of-a-queue-with-large-arguments", "sibling", in_ci=False)
def consumers_of_large(world: World) -> None:
    """Consumers come to a queue with large arguments, one of which is a table, and go."""
    with world.peer() as peer:
        declare(peer, "large", durable=True, arguments=LARGE)
        flood = b"".join(
            consume("large", f"c{number}", nowait=True) + cancel(f"c{number}") +
            queue_declare("large", durable=True, nowait=True) for number in range(200))
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(flood)
            peer.sync()


@shape("deliveries-to-consumers-with-large-arguments", "sibling", in_ci=False)
def deliveries_to_large(world: World) -> None:
    """A hundred consumers with large arguments share a queue."""
    with world.peer() as peer, world.peer() as publisher:
        declare(peer, "shared")
        for number in range(100):
            peer.call(consume("shared", f"c{number}", no_ack=True, arguments=LARGE), methods.BASIC_CONSUME_OK)
        is_on = world.until_time_is_up()
        while is_on():
            fill(publisher, "shared", 2_000)
            peer.sync()


@shape("policy-on-queues-with-large-arguments", "sibling", memory_mib=100, in_ci=False)
def policy_on_large(world: World) -> None:
    """Set a policy that applies to 100 queues with large arguments, again and again."""
    with world.peer() as peer:
        for number in range(100):
            declare(peer, f"large.{number}", durable=True, arguments=LARGE)
        for number in range(5):
            world.policy("all", "^large", f'{{"max-length": {100 + number}}}')
        world.ctl("clear_policy", "--vhost", world.address.vhost, "all")


@shape("same-declaration-again", "sibling")
def same_again(world: World) -> None:
    """One queue is declared again and again."""
    with world.peer() as peer:
        flood = queue_declare("same", durable=True, nowait=True) * 500
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(flood)
            peer.sync()


@shape("durable-declarations", "sibling")
def durable_declarations(world: World) -> None:
    """Very many durable queues are declared, and then deleted."""
    count = world.of(5_000, 20_000)
    with world.peer() as peer:
        declare_many(peer, count, durable=True)
        for octets in batches(lambda at: queue_delete(f"many.{at}", nowait=True), count):
            peer.send(octets)
        peer.sync()


@shape("policy-on-many-queues", "sibling")
def policy_on_many(world: World) -> None:
    """Set and clear a policy that applies to 10,000 queues."""
    count = world.of(5_000, 10_000)
    with world.peer() as peer:
        declare_many(peer, count)
        for number in range(2):
            world.policy("all", "", f'{{"max-length": {100 + number}, "message-ttl": {100_000 + number}}}')
        world.ctl("clear_policy", "--vhost", world.address.vhost, "all")


@shape("vhost-with-10000-queues-deleted", "sibling")
def vhost_deleted(world: World) -> None:
    """A vhost is deleted that has 10,000 queues."""
    with world.peer(vhost=world.other_vhost) as peer:
        declare_many(peer, world.of(5_000, 10_000), durable=True)
        world.ctl("delete_vhost", world.other_vhost)
        peer.hear(methods.CONNECTION_CLOSE)


@shape("listings-of-many-queues", "sibling")
def listings(world: World) -> None:
    """The operator lists 20,000 queues."""
    with world.peer() as peer:
        declare_many(peer, world.of(10_000, 20_000))
        world.ctl("list_queues", "--vhost", world.address.vhost, "name", "messages")
        world.ctl("list_bindings", "--vhost", world.address.vhost)
