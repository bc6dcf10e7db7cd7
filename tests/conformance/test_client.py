"""The client of the conformance suite, with brokers that are not RabbitMQ."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.client import Client, Method, check_close, smaller_limit, without_password
from conformance.conftest import deleted
from conformance.fields import pack
from conformance.methods import CHANNEL_CLOSE, CHANNEL_CLOSE_OK, QUEUE_DELETE_OK

NOT_FOUND = Method(1, *CHANNEL_CLOSE, pack("2s22", 404, "no such queue", 50, 40))


def test_a_reply_text_is_compared_only_with_rabbitmqs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="no such queue"):
        check_close(NOT_FOUND, 404, "NOT_FOUND - no queue 'q' in vhost '/'", 50, 40)
    monkeypatch.setattr(Client, "compares_texts", False)
    check_close(NOT_FOUND, 404, "NOT_FOUND - no queue 'q' in vhost '/'", 50, 40)
    for code, ids in ((406, (50, 40)), (404, (50, 10))):
        with pytest.raises(AssertionError):
            check_close(NOT_FOUND, code, "", *ids)


@pytest.mark.parametrize("own, brokers, agreed", [
    (131072, 65536, 65536), (4096, 65536, 4096), (2047, 0, 2047), (0, 100, 100), (0, 0, 0)])
def test_the_smaller_limit_holds_and_0_is_none(own: int, brokers: int, agreed: int) -> None:
    assert smaller_limit(own, brokers) == agreed


@pytest.mark.parametrize("url, shown", [
    ("amqp://guest:se:cret@host:5672/v", "amqp://guest:***@host:5672/v"), ("amqp://host", "amqp://host"),
    ("amqp://guest@host/", "amqp://guest@host/")])
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


# What a test leaves


class Connection:
    """Answers a delete with this method, and remembers what is sent."""

    def __init__(self, answer: Method) -> None:
        self.answer = answer
        self.sent: list[tuple[int, int]] = []

    def await_method(self, channel: int, wanted: list[tuple[int, int]]) -> Method:
        """The answer."""
        return self.answer

    def channel(self) -> Channel:
        """Another channel."""
        return Channel(self, 2)

    def send_method(self, channel: int, class_id: int, method_id: int, args: bytes = b"") -> None:
        """Remember it."""
        self.sent.append((class_id, method_id))


def test_a_missing_queue_may_close_the_channel_that_deletes_it() -> None:
    connection = Connection(NOT_FOUND)
    assert deleted(Channel(connection, 1), QUEUE_DELETE_OK).number == 2
    assert connection.sent == [CHANNEL_CLOSE_OK]


def test_the_channel_of_a_deletion_goes_on() -> None:
    connection = Connection(Method(1, *QUEUE_DELETE_OK, pack("4", 0)))
    assert deleted(Channel(connection, 1), QUEUE_DELETE_OK).number == 1


def test_a_queue_that_cannot_be_deleted_is_told() -> None:
    connection = Connection(Method(1, *CHANNEL_CLOSE, pack("2s22", 405, "locked", 50, 40)))
    with pytest.raises(AssertionError, match="405 locked"):
        deleted(Channel(connection, 1), QUEUE_DELETE_OK)
