"""Users and their permissions."""

from __future__ import annotations

import pytest

from amqpd.broker.access import Operator, User, pattern_faults
from amqpd.broker.definitions import PermissionDefinition, TopicPermissionDefinition, UserDefinition
from amqpd.errors import ChannelException, ReplyCode


def user(configure: str = "", write: str = "", read: str = "") -> User:
    somebody = User(UserDefinition("somebody"))
    somebody.permit(PermissionDefinition("somebody", "/", configure, write, read))
    return somebody


# What a user may do

def test_a_user_without_a_row_may_do_nothing() -> None:
    nobody = User(UserDefinition("nobody"))
    assert not nobody.may_enter("/")
    assert not nobody.may("/", "read", "orders")


def test_an_empty_pattern_allows_nothing_but_lets_in() -> None:
    assert user().may_enter("/")
    assert not user().may("/", "read", "")
    assert not user().may("/", "read", "orders")


@pytest.mark.parametrize(("pattern", "name", "allowed"), [
    (".*", "orders", True), ("^orders$", "orders", True), ("^orders$", "orders.eu", False), ("ord", "my.orders", True),
    ("^$", "", False), ("amq\\.default", "", True), (".*", "", True), ("^(a|b)", "b1", True), ("^(a|b)", "c", False),
    ("ORDERS", "orders", False),
])
def test_patterns_are_searched_for_anywhere(pattern: str, name: str, allowed: bool) -> None:
    assert user(write=pattern).may("/", "write", name) is allowed


def test_each_right_has_its_own_pattern() -> None:
    somebody = user(configure="^c", write="^w", read="^r")
    assert [somebody.may("/", right, right[0]) for right in ("configure", "write", "read")] == [True] * 3
    assert not somebody.may("/", "read", "w")


def test_permissions_hold_for_one_vhost() -> None:
    assert not user(".*", ".*", ".*").may("other", "read", "orders")


def test_new_permissions_replace_the_old() -> None:
    somebody = user(read="^a")
    assert somebody.may("/", "read", "a")
    somebody.permit(PermissionDefinition("somebody", "/", "", "", "^b"))
    assert (somebody.may("/", "read", "a"), somebody.may("/", "read", "b")) == (False, True)


def test_permissions_can_be_taken_away() -> None:
    somebody = user(".*", ".*", ".*")
    assert somebody.may("/", "read", "a")
    somebody.forbid("/")
    somebody.forbid("never given")
    assert not somebody.may("/", "read", "a") and not somebody.may_enter("/")


@pytest.mark.parametrize(("kind", "name", "text"), [
    ("queue", "orders", "access to queue 'orders' in vhost '/' refused for user 'somebody'"),
    ("exchange", "", "access to exchange 'amq.default' in vhost '/' refused for user 'somebody'"),
])
def test_a_missing_right_is_refused_by_name(kind: str, name: str, text: str) -> None:
    with pytest.raises(ChannelException) as refused:
        user().require("/", "write", kind, name)
    assert (refused.value.code, refused.value.text) == (ReplyCode.ACCESS_REFUSED, text)
    user(write=".*").require("/", "write", kind, name)


# Topics

def topic_user(write: str = ".*", read: str = ".*", name: str = "somebody") -> User:
    somebody = User(UserDefinition(name))
    somebody.permit(PermissionDefinition(name, "/", ".*", ".*", ".*"))
    somebody.permit_topics(TopicPermissionDefinition(name, "/", "events", write, read))
    return somebody


def test_without_topic_permissions_any_key_may_be_used() -> None:
    somebody = topic_user("^a", "^a")
    assert somebody.may_use_key("/", "write", "others", "b") and somebody.may_use_key("other", "write", "events", "b")
    somebody.forbid_topics(somebody.topic_permissions["/", "events"])
    assert somebody.may_use_key("/", "write", "events", "b")


@pytest.mark.parametrize(("pattern", "key", "allowed"), [
    ("^a\\.", "a.b", True), ("^a\\.", "b.a", False), ("b", "a.b", True), ("", "a", False), ("", "", False),
    (".*", "", True),
    ("^{username}\\.", "some.body.x", True), ("^{username}\\.", "someXbody.x", False), ("^{vhost}$", "/", True),
    ("^{client_id}$", "{client_id}", True),
])
def test_topic_permissions_are_searched_in_the_key(pattern: str, key: str, allowed: bool) -> None:
    somebody = topic_user(write=pattern, name="some.body")
    assert somebody.may_use_key("/", "write", "events", key) is allowed
    assert somebody.may_use_key("/", "read", "events", key)


def test_new_topic_permissions_replace_the_old() -> None:
    somebody = topic_user("^a")
    assert somebody.may_use_key("/", "write", "events", "a")
    somebody.permit_topics(TopicPermissionDefinition("somebody", "/", "events", "^b", ""))
    assert [somebody.may_use_key("/", "write", "events", key) for key in "ab"] == [False, True]


def test_a_key_that_may_not_be_used_is_refused_by_name() -> None:
    with pytest.raises(ChannelException) as refused:
        topic_user("^a").require_key("/", "write", "events", "b")
    assert (refused.value.code, refused.value.text) == (
        ReplyCode.ACCESS_REFUSED,
        "access to topic 'b' in exchange 'events' in vhost '/' refused for user 'somebody'")


def test_a_passive_declare_needs_any_right() -> None:
    for rights in (("x", "", ""), ("", "x", ""), ("", "", "x")):
        user(*rights).require_any("/", "queue", "x")
        with pytest.raises(ChannelException, match="access to queue 'y' in vhost '/' refused for user 'somebody'"):
            user(*rights).require_any("/", "queue", "y")


def test_patterns_that_cannot_be_used_are_told_by_right() -> None:
    assert [*pattern_faults(PermissionDefinition("u", "/", "(", ".*", "["))] == [
        ("configure", "missing ) at position 1"), ("read", "unterminated character set at position 1")]
    long = TopicPermissionDefinition("u" * 250, "/", "e", "{username}" * 100, ".*")
    assert [*pattern_faults(long)] == [("write", "longer than 4096 bytes")]


def test_a_stored_pattern_that_cannot_be_used_allows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert not user("(").may("/", "configure", "(") and not topic_user("(").may_use_key("/", "write", "events", "(")
    assert [line.partition(" matches")[0] for line in caplog.messages] == [
        "the pattern '(' of the configure permission of user 'somebody' in vhost '/'",
        "the pattern '(' of the topic write permission of user 'somebody' on exchange 'events' in vhost '/'"]


def test_the_operator_may_do_everything() -> None:
    Operator().require("anywhere", "configure", "queue", "anything")
