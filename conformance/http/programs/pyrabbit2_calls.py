"""Call the methods of pyrabbit2's client, and assert what they return: `pyrabbit2_calls.py AMQP-URL HTTP-URL VHOST`."""
from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, Callable
from urllib.parse import quote, unquote, urlsplit

import kombu
from pyrabbit2.api import Client
from pyrabbit2.http import HTTPError


def main(amqp_url: str, http_url: str, vhost: str) -> None:
    """Do everything in one vhost."""
    url = urlsplit(http_url)
    user = unquote(url.username or "guest")
    client = Client(f"{url.hostname}:{url.port}", user, unquote(url.password or "guest"))
    about_the_broker(client, vhost)
    about_users(client, vhost)
    about_queues(client, vhost)
    about_connections(client, vhost, amqp_url)
    print("done")


def about_the_broker(client: Client, vhost: str) -> None:
    """Overview, nodes, vhosts, definitions."""
    assert client.is_alive(vhost)
    assert client.get_whoami()["tags"]
    assert client.get_overview()["rabbitmq_version"].startswith("3.")
    assert client.get_nodes()[0]["running"] is True
    assert client.get_cluster_name()["name"]
    assert isinstance(client.get_extensions(), list)
    assert vhost in client.get_vhost_names()
    assert client.get_vhost(vhost)["name"] == vhost
    assert vhost in [one["name"] for one in client.get_all_vhosts()]
    client.create_vhost("shapes-other")
    client.delete_vhost("shapes-other")
    assert "shapes-other" not in client.get_vhost_names()
    assert {"users", "vhosts", "queues", "exchanges", "bindings"} <= client.get_definitions().keys()


def about_users(client: Client, vhost: str) -> None:
    """Users, permissions and policies."""
    client.create_user("shapes-pyrabbit", password="recorded", tags="management")
    assert "shapes-pyrabbit" in [one["name"] for one in client.get_users()]
    client.set_vhost_permissions(vhost, "shapes-pyrabbit", ".*", rd="^r", wr="^w")
    assert client.get_permission(vhost, "shapes-pyrabbit")["write"] == "^w"
    assert [one["vhost"] for one in client.get_user_permissions("shapes-pyrabbit")] == [vhost]
    assert "shapes-pyrabbit" in [one["user"] for one in client.get_vhost_permissions(vhost)]
    assert "shapes-pyrabbit" in [one["user"] for one in client.get_permissions()]
    client.delete_permission(vhost, "shapes-pyrabbit")
    client.delete_user("shapes-pyrabbit")
    client.create_policy(vhost, "capped", pattern="^nothing$", definition={"max-length": 1}, **{"apply-to": "queues"})
    assert client.get_policy(vhost, "capped")["definition"] == {"max-length": 1}
    assert "capped" in [one["name"] for one in client.get_all_policies()]
    client.delete_policy(vhost, "capped")
    try:
        client.get_policy(vhost, "capped")
    except HTTPError as error:
        assert error.status == 404
    else:
        raise AssertionError("a deleted policy is still there")


def about_queues(client: Client, vhost: str) -> None:
    """Exchanges, queues, bindings and messages."""
    assert client.create_exchange(vhost, "events", "topic", durable=True)
    assert client.get_exchange(vhost, "events")["type"] == "topic"
    assert "events" in [one["name"] for one in client.get_exchanges(vhost)]
    assert client.get_exchanges()
    client.create_queue(vhost, "orders", durable=True)
    assert client.get_queue(vhost, "orders")["durable"] is True
    assert "orders" in [one["name"] for one in client.get_queues(vhost)]
    client.create_binding(vhost, "events", "orders", "order.#")
    assert "order.#" in [one["routing_key"] for one in client.get_queue_bindings(vhost, "orders")]
    assert client.get_bindings()
    assert client.publish(vhost, "events", "order.new", "hello")
    assert client.get_messages(vhost, "orders", count=1, requeue=True)[0]["payload"] == "hello"
    wait_for("the depth of a queue", lambda: client.get_queue(vhost, "orders").get("messages") == 1)
    assert client.get_queue_depth(vhost, "orders") == 1
    client.get_queue_depths(vhost, ["orders"])
    client.purge_queue(vhost, "orders")
    client.purge_queues([("orders", vhost)])
    assert client.get_messages(vhost, "orders", count=1) in ([], None)
    client.delete_binding(vhost, "events", "orders", quote("order.#", safe=""))
    client.delete_queue(vhost, "orders")
    client.delete_exchange(vhost, "events")


def about_connections(client: Client, vhost: str, amqp_url: str) -> None:
    """Connections and channels, and the end of one."""
    url = urlsplit(amqp_url)
    with kombu.Connection(hostname=url.hostname, port=url.port, userid=url.username or "guest",
                          password=url.password or "guest", virtual_host=vhost) as connection:
        connection.channel()
        wait_for("a channel", lambda: [one for one in client.get_channels() if one.get("vhost") == vhost])
        (channel,) = [one for one in client.get_channels() if one.get("vhost") == vhost]
        assert client.get_channel(channel["name"])["name"] == channel["name"]
        (name,) = [one["name"] for one in client.get_connections() if one.get("vhost") == vhost]
        assert client.get_connection(name)["vhost"] == vhost
        client.delete_connection(name)
        with contextlib.suppress(*connection.connection_errors):
            connection.drain_events(timeout=10)
            raise AssertionError("the connection was not closed")
        wait_for("its end", lambda: not [one for one in client.get_connections() if one.get("vhost") == vhost])


def wait_for(what: str, is_so: Callable[[], Any]) -> None:
    """Ask again until it is so; statistics come late."""
    deadline = time.monotonic() + 20
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.3)


if __name__ == "__main__":
    main(*sys.argv[1:])
