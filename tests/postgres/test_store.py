"""The store in PostgreSQL: what comes back after a crash, who may write, and connections that break."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from amqpd.broker.audit_entry import AuditEntry
from amqpd.broker.definitions import (
    BindingDefinition,
    Defined,
    Deleted,
    ExchangeDefinition,
    QueueDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.message import LARGE_BODY
from amqpd.store.errors import StoreError, StoreLocked
from amqpd.store.journal import Journal
from amqpd.store.postgres import database, schema
from amqpd.store.postgres.store import Store
from tests.postgres.proxy import Proxy
from tests.postgres.servers import server
from tests.store.store_samples import contents, define, load, message, queue, save, settle

ONE, TWO = queue(1), queue(2)
Opened = Callable[..., Store]


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """Ask, or change, a database as any tool could."""
    with psycopg.connect(url, autocommit=True, options="-csearch_path=amqpd") as connection:
        cursor = connection.execute(query)      # type: ignore
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(server().port) as found:
        yield found


def through(proxy: Proxy, url: str) -> str:
    return url.replace(f":{server().port}/", f":{proxy.port}/")


# What comes back

@pytest.mark.parametrize("sent", [
    message(1, b""),
    message(1, b"hello"),
    message(1, os.urandom(300_000)),
    message(1, b"small frames", frame_max=9),
    message(1, properties=b"\x00\x00"),
    message(1, exchange="e" * 255, routing_key="k" * 255),
    message(1, exchange="Ünïcode", routing_key="nul \x00 and 'quotes'; --\x01"),
], ids=["empty", "small", "large", "tiny frames", "no properties", "long names", "odd names"])
@pytest.mark.parametrize("count", [1, 40], ids=["in a row", "in a block"])
def test_a_message_comes_back_octet_for_octet(opened, store, journal, sent, count):
    journal.published(ONE, [message(
        number, bytes(sent.body), exchange=sent.route.exchange, routing_key=sent.route.routing_key,
        properties=sent.properties) for number in range(1, count + 1)])
    save(store, journal)
    store.abandon()
    back = load(opened()).messages[1]
    assert [one[1:] for one in contents(back)] == [one[1:] for one in contents([sent])] * count


def test_definitions_come_back_whatever_is_in_their_names(opened, store, journal):
    odd = "a\x00b\x01c'\"\\;--Ü"
    made = [
        VhostDefinition("/"), VhostDefinition(odd, description=odd), UserDefinition(odd, "hash", "x", (odd,)),
        ExchangeDefinition(odd, odd, "topic", durable=True, arguments={odd: odd, "n": 1, "b": b"\x00\xff"}),
        QueueDefinition(3, odd, odd, durable=True, arguments={"long": "x" * 10_000}),
        BindingDefinition(odd, odd, "queue", odd, odd, {"long": "y" * 10_000}),
        BindingDefinition(odd, odd, "queue", odd, odd, {"long": "z" * 10_000})]
    define(journal, *made)
    save(store, journal)
    define(journal, VhostDefinition(odd, description="changed"), made[-1])
    journal.changed(Deleted(made[-2]))
    save(store, journal)
    store.abandon()
    back = load(opened()).definitions
    assert made[2] in back and made[3] in back and made[4] in back and made[6] in back and made[5] not in back
    assert VhostDefinition(odd, description="changed") in back


def test_a_deleted_vhost_takes_all_that_is_in_it(opened, store, url):
    journal = Journal()
    define(journal, VhostDefinition("v"), queue(5, vhost="v"), queue(6, vhost="/"))
    run = [message(number) for number in range(1, 41)] + [message(number, holders=2) for number in (50, 51)]
    journal.published(queue(5, vhost="v"), run)
    journal.published(queue(6, vhost="/"), run[-1:])
    save(store, journal)
    journal.changed(Deleted(VhostDefinition("v")))
    save(store, journal)
    store.abandon()
    back = load(opened())
    assert back.messages.keys() == {6} and [one.number for one in back.messages[6]] == [51]
    assert store.info().messages == 1
    assert ask(url, "SELECT count(*) FROM message_blocks") == [(0,)]


def test_a_large_body_in_parts_comes_back_and_is_deleted_with_its_message(opened, store, url):
    journal = Journal(part_bytes=1 << 16)
    journal.bodies.release = store.release_body
    define(journal, ONE)
    sent = message(1, os.urandom(LARGE_BODY * 5 + 7))
    body = journal.bodies.add(sent)
    while (piece := journal.bodies.next_piece()) is not None:
        store.write_body(piece)
        piece.end()
    assert body.is_done
    from amqpd.message import StoredMessage

    journal.published(ONE, [StoredMessage(
        1, sent.route, sent.facts, sent.content, sent.body_size, stored_body=body.stored)])
    save(store, journal)
    store.abandon()
    again = opened()
    back = load(again).messages[1]
    assert bytes(back[0].body) == bytes(sent.body)
    assert ask(url, "SELECT size, length(body) FROM messages") == [(sent.body_size, sent.body_size)]
    journal = Journal()
    settle(journal, ONE, back)
    del back
    save(again, journal)
    again.release_body(body.stored.body_id)
    while again.has_to_sweep:
        again.sweep()
    assert ask(url, "SELECT count(*) FROM body_parts") == [(0,)]


@pytest.mark.parametrize("count", [5, 40], ids=["in rows", "in a block"])
def test_damage_is_noticed_by_the_checksum_and_set_aside(opened, store, journal, url, caplog, count):
    journal.published(ONE, [message(number, b"%04d" % number) for number in range(1, count + 1)])
    save(store, journal)
    table, column = ("message_rows", "body") if count == 5 else ("message_blocks", "contents")
    store.abandon()
    ask(url, f"UPDATE {table} SET {column} = overlay({column} placing 'X' from position('0003' in {column}) for 1) "
             f"WHERE position('0003' in {column}) > 0")
    again = opened()
    found = load(again)
    assert [one.number for one in found.messages[1]] == [n for n in range(1, count + 1) if n != 3]
    assert found.damaged == 1 and "1 damaged message of queue 'queue-1'" in caplog.text
    again.check()
    assert ask(url, "SELECT number FROM damaged") == [(3,)]


def test_the_audit_log_is_read_by_patterns(store, journal):
    for number, action in enumerate(("user.added", "user.deleted", "queue.deleted", "q\\x")):
        journal.audited(AuditEntry(number, "a\x00b", "1.2.3.4", "http", action, "{}"))
    save(store, journal)

    def actions(**wanted: Any) -> list[str]:
        return [entry.action for entry in store.audit_log(limit=10, **wanted)]

    assert actions(action="user.*") == ["user.added", "user.deleted"]
    assert actions(action="?ueue.[cd]eleted") == ["queue.deleted"]
    assert actions(action="q\\x") == ["q\\x"] and actions(action="user+") == []
    assert actions(user="a\x00b", since_ms=2) == ["queue.deleted", "q\\x"] and actions(door="amqp") == []


def test_the_views_show_messages_and_queues(store, journal, url):
    journal.published(ONE, [message(number, b"%d" % number, exchange="e", routing_key="k") for number in range(1, 41)])
    journal.published(TWO, [message(50, b"\xff\x00", routing_key="a\x00b")], {50: 1_800_000_000_123})
    settle(journal, ONE, [message(1)])
    save(store, journal)
    assert ask(url, "SELECT queue, number, exchange, routing_key, size, text, expires FROM messages "
                    "WHERE number IN (2, 40, 50) ORDER BY number") == [
        ("queue-1", 2, "e", "k", 1, "2", None), ("queue-1", 40, "e", "k", 2, "40", None),
        ("queue-2", 50, "", "a\\000b", 2, None, "2027-01-15T08:00:00.123Z")]
    assert ask(url, "SELECT name, type, messages, octets FROM queues ORDER BY name") == [
        ("queue-1", "classic", 39, 8 + 31 * 2), ("queue-2", "classic", 1, 2)]


# Who may write

def test_a_second_broker_is_refused_while_the_first_one_lives(opened, store):
    with pytest.raises(StoreLocked, match="is led by amqpd, since 20.*: stop that broker"):
        opened(lease_s=0.2, renew_s=0.1)


def test_a_start_need_not_wait_after_a_clean_stop_or_a_kill(opened, store):
    store.abandon()     # its session is gone, as after a kill, and the lease has 5 s to go
    second = opened(lease_s=600.0)
    load(second)
    second.close({})
    opened()
    assert second.first_number == store.first_number + (1 << schema.EPOCH_SHIFT)


def test_a_broker_whose_lease_ran_out_can_write_nothing(opened, store, journal, url):
    """As after SIGSTOP: it was taken over, and does not know."""
    save(store, journal)
    store._lease._ended.set()
    ask(url, "UPDATE leases SET until = clock_timestamp()")
    second = opened()
    load(second)
    journal.published(ONE, [message(1)])
    with pytest.raises(StoreError, match="has been taken over by another broker"):
        store.commit(journal.take())
    with pytest.raises(StoreError, match="has been taken over"):
        store.check_files()
    store.abandon()
    second.abandon()
    assert load(opened()).messages[1] == []


def test_who_lost_the_lease_hears_of_it_without_a_commit(opened, store, url):
    lost = threading.Event()
    fail = store.database.fail
    store._lease.on_lost = lambda error: (fail(error), lost.set())
    ask(url, "UPDATE leases SET epoch = epoch + 1")
    assert lost.wait(20)
    with pytest.raises(StoreError, match="has been taken over"):
        store.check_files()


def test_a_batch_that_is_on_its_way_is_in_before_the_store_is_taken_over(opened, store, journal, url):
    """A take-over waits for a transaction that holds the lease's row."""
    with psycopg.connect(url, options="-csearch_path=amqpd") as batch:
        batch.execute(database.FENCE, (store.database.epoch, store.database.epoch, 999))
        store.abandon()
        taken = threading.Event()

        def take_over() -> None:
            opened()
            taken.set()

        thread = threading.Thread(target=take_over)
        thread.start()
        assert not taken.wait(0.3)
        batch.commit()
        thread.join(20)
        assert taken.is_set()


# Connections that break

def test_each_batch_is_in_once_wherever_the_connection_breaks(opened, url, proxy):
    """The connection is cut after each octet of the first commits, and at steps of several within later ones."""
    store = opened(through(proxy, url))
    load(store)
    journal = Journal()
    define(journal, ONE)
    save(store, journal)
    before = proxy.passed
    journal.published(ONE, [message(1)])
    store.commit(journal.take())
    size, number = proxy.passed - before, 1
    for cut_after in range(1, size + 60, 7):
        number += 1
        journal.published(ONE, [message(number)])
        proxy.cut_after = cut_after
        store.commit(journal.take())
        proxy.cut_after = None
    for _ in range(5):      # the commit takes place, and its answer is lost
        number += 1
        journal.published(ONE, [message(number)])
        proxy.cuts_answers = True
        store.commit(journal.take())
    store.check()
    assert ask(url, "SELECT number FROM message_rows ORDER BY number") == [(one,) for one in range(1, number + 1)]
    store.abandon()
    assert [one.number for one in load(opened()).messages[1]] == [*range(1, number + 1)]


def test_settles_of_an_unknown_commit_are_counted(opened, url, proxy):
    store = opened(through(proxy, url))
    load(store)
    journal = Journal()
    define(journal, ONE, TWO)
    run = [message(number, holders=2) for number in range(1, 6)]
    journal.published(ONE, run)
    journal.published(TWO, run)
    save(store, journal)
    settle(journal, ONE, run)
    save(store, journal)
    settle(journal, TWO, run)
    proxy.cuts_answers = True
    save(store, journal)
    assert store.info().messages == 0


def test_commits_wait_while_the_server_is_away_and_publishers_are_told(opened, url, proxy):
    store = opened(through(proxy, url))
    load(store)
    said: list[str] = []
    away = threading.Event()
    store.on_reachable(lambda reason: (said.append(reason), away.set()))
    journal = Journal()
    define(journal, ONE)
    journal.published(ONE, [message(1)])
    proxy.refuses = True
    proxy.cut()
    thread = threading.Thread(target=store.commit, args=(journal.take(),))
    thread.start()
    assert away.wait(10) and thread.is_alive()
    proxy.refuses = False
    thread.join(20)
    assert said == ["the store is not reachable", ""]
    assert ask(url, "SELECT number FROM message_rows") == [(1,)]
    store.check()


def test_a_stop_does_not_wait_for_a_server_that_is_away(opened, url, proxy):
    store = opened(through(proxy, url))
    load(store)
    proxy.refuses = True
    proxy.cut()
    journal = Journal()
    define(journal, ONE)
    failed: list[StoreError] = []

    def commit() -> None:
        try:
            store.commit(journal.take())
        except StoreError as error:
            failed.append(error)

    away = threading.Event()
    store.on_reachable(lambda reason: away.set())
    thread = threading.Thread(target=commit)
    thread.start()
    assert away.wait(10)
    store.abandon()
    thread.join(10)
    assert "cannot reach" in str(failed[0])


# What bad input gets

@pytest.mark.parametrize("change, text", [
    (lambda url: url.replace("/test", "/none"), 'database "none-.*" does not exist.*: create it first: createdb'),
    (lambda url: url.replace("amqpd@", "nobody@"), 'role "nobody" does not exist'),
    (lambda url: "postgresql://amqpd@127.0.0.1:1/x?connect_timeout=1", "see that the server runs and can be reached"),
    (lambda url: url + "?nonsense=1", "invalid URI query parameter.*give postgresql://USER@HOST/DATABASE"),
    (lambda url: url + "?amqpd_schema=pg_catalog", "has tables of another program: choose another schema"),
])
def test_a_wrong_url_gets_a_line_that_says_what_helps(url, change, text):
    with pytest.raises(StoreError, match=text) as refused:
        Store.open(change(url), now=1)
    assert "\n" not in str(refused.value)


def test_a_password_is_in_no_message(url):
    with pytest.raises(StoreError) as refused:
        Store.open(url.replace("amqpd@", "amqpd:sesame@").replace("/test", "/none"), now=1)
    assert "sesame" not in str(refused.value)


def test_a_newer_format_is_refused_and_left_as_it_is(opened, store, url):
    store.abandon()
    ask(url, "UPDATE meta SET value = 99 WHERE key = 'format'")
    with pytest.raises(StoreError, match="has format 99, and this amqpd reads up to 1"):
        opened()
    assert ask(url, "SELECT value FROM meta WHERE key = 'format'") == [(99,)]


def test_two_brokers_share_a_database_by_schemas(opened, store, journal, url):
    save(store, journal)
    other = opened(f"{url}?amqpd_schema=other")
    assert load(other).definitions == [] and other.info().path.endswith("?amqpd_schema=other")
    assert Store.exists(f"{url}?amqpd_schema=other") and not Store.exists(f"{url}?amqpd_schema=third")


def test_a_user_without_the_right_is_told_which(url):
    ask(url, "CREATE ROLE poor LOGIN")
    with pytest.raises(StoreError, match="permission denied.*GRANT CREATE ON DATABASE"):
        Store.open(url.replace("amqpd@", "poor@"), now=1)


def test_what_was_defined_and_deleted_in_one_batch_leaves_nothing(opened, store):
    journal = Journal()
    journal.changed(Defined(VhostDefinition("v")))
    journal.changed(Defined(queue(9, vhost="v")))
    journal.published(queue(9, vhost="v"), [message(1)])
    journal.changed(Deleted(VhostDefinition("v")))
    save(store, journal)
    store.abandon()
    assert load(opened()).definitions == []
