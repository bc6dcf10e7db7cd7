"""§26 Validated user-id: a publish with the name of another user is refused."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker
from conformance.fields import Properties
from conformance.methods import BASIC_PUBLISH

pytestmark = pytest.mark.needs("validated-user-id")


def test_ones_own_user_id_is_delivered(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, properties=Properties(user_id=broker.parts.user))
    assert ch.get(queue_name).properties == Properties(user_id=broker.parts.user)


@pytest.mark.parametrize("user", ["nobody", "", "Guest ", "\u0433uest"])
def test_another_user_id_is_refused(ch: Channel, broker: Broker, user: str) -> None:
    ch.publish("amq.direct", "nowhere", properties=Properties(user_id=user))
    text = f"user_id property set to '{user}' but authenticated user was '{broker.parts.user}'"
    ch.fails(406, f"PRECONDITION_FAILED - {text}", *BASIC_PUBLISH)


def test_a_user_id_that_differs_in_case_is_refused(ch: Channel, broker: Broker) -> None:
    user = broker.parts.user.swapcase()
    ch.publish("amq.direct", "nowhere", properties=Properties(user_id=user))
    text = f"user_id property set to '{user}' but authenticated user was '{broker.parts.user}'"
    ch.fails(406, f"PRECONDITION_FAILED - {text}", *BASIC_PUBLISH)


def test_no_user_id_is_added(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    assert ch.get(queue_name).properties.user_id is None
