"""Users and their permissions."""

from __future__ import annotations

import pytest

from amqpd.broker.access import Operator, User
from amqpd.broker.definitions import PermissionDefinition, UserDefinition
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


def test_the_operator_may_do_everything() -> None:
    Operator().require("anywhere", "configure", "queue", "anything")
