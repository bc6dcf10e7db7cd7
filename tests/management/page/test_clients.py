"""The pages of connections, channels and consumers, and what is done there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from urllib.parse import quote

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from amqpd.config import Management
from tests.management.page.conftest import Visitor, user_with
from tests.support.api import FREE, Api, running

HOSTILE = '"><img src=x onerror=alert(1)>{{7*7}}\u202e'


@contextlib.contextmanager
def client(api: Api, name: str = "worker") -> Iterator[BlockingChannel]:
    """A channel of a client that gave its connection a name."""
    parameters = pika.ConnectionParameters("127.0.0.1", api.amqp_port, client_properties={"connection_name": name})
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):       # the broker may have closed it
            connection.close()


def link(visitor: Visitor, path: str) -> str:
    """Return the address that the first row of a list leads to."""
    found = re.search(r'<th scope="row"><a href="([^"]+)"', visitor.text(path))
    assert found is not None
    return found[1]


def test_the_lists_lead_to_a_connection_and_its_channels(api: Api, guest: Visitor) -> None:
    with client(api) as channel:
        channel.queue_declare("of.worker", exclusive=True)
        channel.confirm_delivery()
        channel.basic_consume("of.worker", lambda *_: None, consumer_tag="tag-1")
        listed = guest.text("/connections")
        assert ">worker</td>" in listed and "1–1 of 1 connection" in listed
        shown = guest.text(link(guest, "/connections"))
        assert "AMQP 0-9-1" in shown and "Pika Python Client Library" in shown and "not encrypted" in shown
        assert '<span class="badge ">confirms</span>' in shown
        assert "consumer_cancel_notify" in shown
        to_channel = link(guest, link(guest, "/connections"))
        assert to_channel == link(guest, "/channels")
        shown = guest.text(to_channel)
        assert "<h1>Channel 1</h1>" in shown and "tag-1" in shown and "/queues/%2F/of.worker" in shown
        listed = guest.text("/consumers?name=TAG")
        assert "tag-1" in listed and f'href="{to_channel}"' in listed and "gets messages" in listed


def test_a_connection_is_found_by_address_user_and_the_name_of_its_client(api: Api, guest: Visitor) -> None:
    with client(api, "Worker of invoices"):
        for wanted in ("127.0.0.1", "GUEST", "of+inv", "regex=1&name=^gue.t$", "regex=1&name=^worker.*s$"):
            query = wanted if "=" in wanted else f"name={wanted}"
            assert "1–1 of 1 connection" in guest.text(f"/connections?{query}"), wanted
        assert ">Worker of invoices</td>" not in guest.text("/connections?name=another")
        # RabbitMQ's API, and so amqpd's, searches names only.
        assert api.get("/connections?page=1&name=invoices")["filtered_count"] == 0


def test_lists_without_clients_say_what_to_do(guest: Visitor) -> None:
    assert "A client connects with an AMQP address" in guest.text("/connections")
    assert "A client opens channels" in guest.text("/channels")
    assert "A client consumes from a queue" in guest.text("/consumers")


def test_a_connection_is_closed_with_the_reason_that_its_client_is_told(api: Api, guest: Visitor) -> None:
    with client(api) as channel:
        address = link(guest, "/connections")
        assert guest.post(f"{address}/close", reason="x" * 201).status == 422
        assert guest.post(f"{address}/close", reason="two\nlines").status == 422
        assert channel.connection.is_open
        reply = guest.post(f"{address}/close", reason="maintenance at noon")
        assert (reply.status, "is closed" in reply.headers["hx-trigger"]) == (204, True)
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="maintenance at noon"):
            channel.connection.process_data_events(5)
    assert guest.post(f"{address}/close").status == 404


def test_who_may_not_close_a_connection_gets_no_button_and_is_refused(api: Api, guest: Visitor) -> None:
    watcher, other = user_with(api, "watcher", "monitoring"), user_with(api, "other", "management")
    with client(api):
        address = link(guest, "/connections")
        assert 'data-open="close"' in guest.text(address) and 'data-open="close"' not in watcher.text(address)
        assert watcher.post(f"{address}/close").status == other.post(f"{address}/close").status == 401
        assert other.get(address).status == 401 and "There are no connections." in other.text("/connections")
        assert guest.get(address).status == 200


def test_the_prefetch_of_a_consumer_is_changed_and_the_consumer_cancelled(api: Api, guest: Visitor) -> None:
    with client(api) as channel, client(api) as other:
        channel.queue_declare("shared", auto_delete=True)
        for one in (channel, other):        # the same tag on two channels
            one.basic_qos(prefetch_count=7)
            one.basic_consume("shared", lambda *_: None, consumer_tag="same")
        names = [one["channel_details"]["name"] for one in api.get("/consumers")]
        fields = {"vhost": "/", "queue": "shared", "tag": "same", "channel": names[1]}
        for wrong in ("", "-1", "many", "65536"):
            reply = guest.post("/consumers/prefetch", prefetch=wrong, **fields)
            assert (reply.status, b"Enter a whole number" in reply.body) == (422, True)
        assert guest.post("/consumers/prefetch", prefetch="3", **fields).status == 204
        assert {one["channel_details"]["name"]: one["prefetch_count"] for one in api.get("/consumers")} == {
            names[0]: 7, names[1]: 3}
        assert guest.post("/consumers/cancel", **fields).status == 204
        assert [one["channel_details"]["name"] for one in api.get("/consumers")] == names[:1]
        assert guest.post("/consumers/cancel", **fields).status == 404
        assert guest.post("/consumers/cancel", **{**fields, "tag": ""}).status == 400


def test_who_may_not_act_on_consumers_gets_no_buttons_and_is_refused(api: Api, guest: Visitor) -> None:
    watcher = user_with(api, "watcher", "monitoring")
    with client(api) as channel:
        channel.queue_declare("watched", exclusive=True)
        channel.basic_consume("watched", lambda *_: None, consumer_tag="one")
        address = link(guest, "/channels")
        assert 'data-open="cancel"' in guest.text(address) and 'data-open="cancel"' not in watcher.text(address)
        fields = {"vhost": "/", "queue": "watched", "tag": "one", "channel": ""}
        assert watcher.post("/consumers/cancel", **fields).status == 401
        assert watcher.post("/consumers/prefetch", prefetch="1", **fields).status == 401


def test_hostile_names_of_clients_are_text(api: Api, guest: Visitor) -> None:
    with client(api, HOSTILE) as channel:
        channel.queue_declare("hostile", exclusive=True)
        channel.basic_consume("hostile", lambda *_: None, consumer_tag=HOSTILE, arguments={HOSTILE: HOSTILE})
        channel.basic_qos(prefetch_count=1)
        pages = [guest.text(path) for path in (
            "/connections", link(guest, "/connections"), link(guest, "/channels"), "/consumers",
            "/consumers?columns=consumer_tag,arguments")]
    for shown in pages:
        assert "<img" not in shown and "49\u202e" not in shown
    assert sum("&#34;&gt;&lt;img src=x" in shown for shown in pages) >= 4


@pytest.mark.parametrize("path", ["/connections/none", "/channels/none", "/connections/" + quote("a/../b", safe="")])
def test_a_client_that_has_gone_is_told(guest: Visitor, path: str) -> None:
    reply = guest.get(path)
    assert (reply.status, b"There is no such page" in reply.body) == (404, True)


def test_clients_are_shown_without_statistics_too() -> None:
    management = Management(listeners=(FREE,), disable_stats=True)
    with running(management=management) as api, client(api) as channel:
        guest = Visitor(api)
        channel.queue_declare("plain", exclusive=True)
        channel.basic_consume("plain", lambda *_: None)
        for path in ("/connections", "/channels", "/consumers", link(guest, "/connections"), link(guest, "/channels")):
            assert "<h1>" in guest.text(path)
