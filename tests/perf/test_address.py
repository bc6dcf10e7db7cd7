"""The URL of a broker."""

from __future__ import annotations

import pytest

from amqpd.perf.address import read_url


@pytest.mark.parametrize("url, host, port, vhost, user, password, is_tls", [
    ("amqp://guest:guest@127.0.0.1:5672/", "127.0.0.1", 5672, "/", "guest", "guest", False),
    ("amqps://mq.example.org/shop", "mq.example.org", 5671, "shop", "guest", "guest", True),
    ("amqp://a%40b:p%2Fw@[::1]:7/%2Fdeep", "::1", 7, "/deep", "a@b", "p/w", False),
    ("amqp://localhost:5672//", "localhost", 5672, "/", "guest", "guest", False),
    ("localhost:5673", "localhost", 5673, "/", "guest", "guest", False),
])
def test_a_url_names_broker_vhost_and_login(
    url: str, host: str, port: int, vhost: str, user: str, password: str, is_tls: bool
) -> None:
    found = read_url(url)
    assert (found.host, found.port, found.vhost, found.user, found.password, found.is_tls) == (
        host, port, vhost, user, password, is_tls)


@pytest.mark.parametrize("url, words", [
    ("http://localhost/", "amqp://"), ("amqp://u:sesame@h:99999/", "port"), ("amqp://h/a/b", "%2F"),
    ("amqp://u:sesame@h/v?heartbeat=3", "?"),
])
def test_what_is_no_such_url_is_said_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        read_url(url)
    assert words in str(error.value) and "sesame" not in str(error.value)
