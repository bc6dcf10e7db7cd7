"""The limits of vhosts, users and the broker as clients meet them, and the counts behind them."""

from __future__ import annotations

import pytest
from pamqp.commands import Channel, Connection, Queue

from amqpd.broker.definitions import ParameterDefinition, PermissionDefinition, VhostDefinition
from amqpd.broker.limits import MAX_CHANNELS, MAX_CONNECTIONS, MAX_QUEUES
from amqpd.broker.parameters import LIMITS, VHOST_LIMITS
from tests.support.talk import Stage, Talk

OF_VHOST = "NOT_ALLOWED - access to vhost '/' refused for user '{}': connection limit ({}) is reached"
OF_USER = "NOT_ALLOWED - connection refused for user '{}': user connection limit ({}) is reached"
OF_CHANNELS = (
    "NOT_ALLOWED - number of channels opened for user '{}' has reached the maximum allowed user limit of ({})")
OF_QUEUES = "PRECONDITION_FAILED - cannot declare queue '{}': queue limit in vhost '{}' ({}) is reached"


def limit_vhost(stage: Stage, vhost: str = "/", **limits: int) -> None:
    value = {name.replace("_", "-"): limit for name, limit in limits.items()}
    stage.broker.parameters.set(ParameterDefinition(vhost, VHOST_LIMITS, LIMITS, value))


def opening(stage: Stage, user: str = "guest", vhost: str = "/") -> Talk:
    """Return a client that has asked for its vhost."""
    talk = stage.stranger().greet().log_in(user)
    talk.hear(Connection.Tune)
    return talk.client(Connection.TuneOk(10, 4_096, 0), Connection.Open(vhost))


# Connections


def test_a_vhost_takes_as_many_connections_as_its_limit_allows(stage: Stage) -> None:
    limit_vhost(stage, max_connections=2)
    first, _ = stage.client(), stage.client("bob")
    opening(stage).hung_up(530, OF_VHOST.format("guest", 2), 10, 40)
    first.lose()
    stage.client()


def test_a_limit_of_one_vhost_is_not_that_of_another(stage: Stage) -> None:
    stage.broker.add_vhost(VhostDefinition("other"))
    stage.broker.users.set_permissions(PermissionDefinition("guest", "other", "", "", ""))
    limit_vhost(stage, max_connections=0)
    opening(stage).hung_up(530, OF_VHOST.format("guest", 0), 10, 40)
    opening(stage, vhost="other").hear(Connection.OpenOk)


def test_a_negative_limit_is_none_and_a_cleared_one_neither(stage: Stage) -> None:
    limit_vhost(stage, max_connections=-1, max_queues=-1)
    stage.client().open_channel().client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    limit_vhost(stage, max_connections=0)
    opening(stage).hung_up(530, OF_VHOST.format("guest", 0), 10, 40)
    stage.broker.parameters.clear("/", VHOST_LIMITS, LIMITS)
    stage.client()


def test_a_lower_limit_leaves_open_connections_alone(stage: Stage) -> None:
    first = stage.client()
    limit_vhost(stage, max_connections=0)
    first.open_channel()
    opening(stage).hung_up(530, OF_VHOST.format("guest", 0), 10, 40)


def test_a_user_opens_as_many_connections_as_the_limit_allows(stage: Stage) -> None:
    stage.broker.users.set_limits("guest", {MAX_CONNECTIONS: 1})
    first = stage.client()
    stage.client("bob")
    opening(stage).hung_up(530, OF_USER.format("guest", 1), 10, 40)
    first.client(Connection.Close(200, "", 0, 0)).broker(Connection.CloseOk())
    stage.client()


def test_a_refused_connection_does_not_count(stage: Stage) -> None:
    stage.broker.users.set_limits("guest", {MAX_CONNECTIONS: 1})
    first = stage.client()
    for _ in range(3):
        opening(stage).hung_up(530, OF_USER.format("guest", 1), 10, 40)
    first.lose()
    assert stage.broker.users["guest"].connection_count == 0
    assert stage.broker.vhosts["/"].connection_count == 0


def test_who_may_not_enter_a_full_vhost_does_not_hear_that_it_is_full(stage: Stage) -> None:
    stage.broker.users.clear_permissions("bob", "/")
    limit_vhost(stage, max_connections=0)
    opening(stage, "bob").hung_up(530, "NOT_ALLOWED - access to vhost '/' refused for user 'bob'", 10, 40)


def test_a_refused_connection_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.broker.users.set_limits("guest", {MAX_CONNECTIONS: 0})
    opening(stage).hung_up(530, OF_USER.format("guest", 0), 10, 40)
    assert "connection refused for user 'guest': user connection limit (0) is reached" in caplog.text


# Channels


def test_a_user_opens_as_many_channels_as_the_limit_allows_on_all_connections(stage: Stage) -> None:
    stage.broker.users.set_limits("guest", {MAX_CHANNELS: 2})
    first = stage.client().open_channel(1)
    second = stage.client().open_channel(1)
    stage.client("bob").open_channel(1)
    second.client(Channel.Open(), channel=2).hung_up(530, OF_CHANNELS.format("guest", 2), 0, 0)
    first.open_channel(2).close_channel(2).open_channel(3)
    assert stage.broker.users["guest"].channel_count == 2


def test_the_channels_of_a_lost_connection_no_longer_count(stage: Stage) -> None:
    stage.broker.users.set_limits("guest", {MAX_CHANNELS: 1})
    stage.client().open_channel(1).lose()
    stage.client().open_channel(1)


def test_no_channel_at_all(stage: Stage) -> None:
    stage.broker.users.set_limits("guest", {MAX_CHANNELS: 0})
    stage.client().client(Channel.Open(), channel=1).hung_up(530, OF_CHANNELS.format("guest", 0), 0, 0)


# Queues


def test_a_vhost_has_as_many_queues_as_its_limit_allows(stage: Stage) -> None:
    limit_vhost(stage, max_queues=2)
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="a")).hear(Queue.DeclareOk)
    talk.client(Queue.Declare(queue="b", exclusive=True)).hear(Queue.DeclareOk)
    talk.client(Queue.Declare(queue="a")).hear(Queue.DeclareOk)         # is there already
    talk.client(Queue.Declare(queue="c")).closed(406, OF_QUEUES.format("c", "/", 2), 50, 10)
    talk.open_channel(2)
    talk.client(Queue.Delete(queue="b"), channel=2).hear(Queue.DeleteOk)
    talk.client(Queue.Declare(queue="c"), channel=2).hear(Queue.DeclareOk)


def test_a_full_vhost_is_told_before_a_dead_letter_exchange_is_checked(stage: Stage) -> None:
    limit_vhost(stage, max_queues=0)
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q", arguments={"x-dead-letter-exchange": 1}))
    talk.closed(406, OF_QUEUES.format("q", "/", 0), 50, 10)


def test_all_vhosts_together_have_a_limit_of_queues(stage: Stage) -> None:
    stage.broker.add_vhost(VhostDefinition("other"))
    stage.broker.users.set_permissions(PermissionDefinition("guest", "other", ".*", ".*", ".*"))
    stage.broker.quota.limit = 2
    here = stage.client().open_channel()
    there = opening(stage, vhost="other")
    there.hear(Connection.OpenOk)
    there.open_channel()
    here.client(Queue.Declare(queue="a", durable=True)).hear(Queue.DeclareOk)
    there.client(Queue.Declare(queue="b")).hear(Queue.DeclareOk)
    here.client(Queue.Declare(queue="c")).closed(
        406, "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in cluster (2) is reached, which "
        "limits.max_queues sets", 50, 10)
    there.lose()
    stage.broker.delete_vhost("other")
    assert stage.broker.quota.count == 1
    here.open_channel(2)
    here.client(Queue.Declare(queue="c"), channel=2).hear(Queue.DeclareOk)


def test_a_deleted_queue_makes_room_in_the_broker(stage: Stage) -> None:
    stage.broker.quota.limit = 1
    talk = stage.client().open_channel()
    for method in (Queue.Declare(queue="a"), Queue.Delete(queue="a"), Queue.Declare(queue="b", exclusive=True)):
        talk.client(method).hear(Queue.DeclareOk if isinstance(method, Queue.Declare) else Queue.DeleteOk)
    talk.lose()
    stage.client().open_channel().client(Queue.Declare(queue="c")).hear(Queue.DeclareOk)


def test_limits_and_counts_are_there_again_after_a_restart(stage: Stage) -> None:
    limit_vhost(stage, max_queues=1)
    stage.broker.users.set_limits("guest", {MAX_CHANNELS: 1})
    stage.client().open_channel().client(Queue.Declare(queue="a", durable=True)).hear(Queue.DeclareOk)
    stage.journal.commit()
    again = Stage(journal=stage.journal)
    assert again.broker.quota.count == 1
    assert again.broker.vhosts["/"].limits == {MAX_QUEUES: 1}
    talk = again.client().open_channel(1)
    again.client().client(Channel.Open(), channel=2).hung_up(530, OF_CHANNELS.format("guest", 1), 0, 0)
    talk.client(Queue.Declare(queue="b")).closed(406, OF_QUEUES.format("b", "/", 1), 50, 10)


# The default type of queues


def declared(talk: Talk, name: str, **properties: object) -> dict[str, object]:
    """Declare a queue and return its arguments."""
    talk.client(Queue.Declare(queue=name, **properties)).hear(Queue.DeclareOk)      # type: ignore[arg-type]
    return dict(talk.stage.broker.vhosts["/"].queues[name].definition.arguments)


@pytest.fixture
def quorum(stage: Stage) -> Talk:
    """Return a client of a vhost whose default type is quorum."""
    stage.broker.replace_vhost(VhostDefinition("/", default_queue_type="quorum"))
    return stage.client().open_channel()


def test_a_queue_without_a_type_gets_the_default_type(quorum: Talk) -> None:
    assert declared(quorum, "q", durable=True, arguments={"x-max-length": 1}) == {
        "x-queue-type": "quorum", "x-max-length": 1}
    for arguments in ({"x-max-length": 1}, {"x-max-length": 1, "x-queue-type": "quorum"}):
        declared(quorum, "q", durable=True, arguments=arguments)
    quorum.client(Queue.Declare(queue="q", durable=True, arguments={"x-max-length": 1, "x-queue-type": "classic"}))
    quorum.closed(
        406, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'classic' "
        "but current is 'quorum'", 50, 10)


@pytest.mark.parametrize("properties", [
    {}, {"durable": True, "auto_delete": True}, {"durable": True, "exclusive": True}])
def test_a_queue_that_cannot_be_of_the_default_type_is_classic(quorum: Talk, properties: dict[str, bool]) -> None:
    assert declared(quorum, "q", **properties) == {}


def test_a_type_that_is_named_counts(quorum: Talk) -> None:
    assert declared(quorum, "q", durable=True, arguments={"x-queue-type": "classic"}) == {"x-queue-type": "classic"}


def test_a_server_named_queue_cannot_be_of_a_default_type_that_does_not_allow_it(quorum: Talk) -> None:
    quorum.client(Queue.Declare(queue="", durable=True)).closed(
        406, "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue", 50, 10)


def test_a_queue_that_is_older_than_the_default_type_can_be_declared_again_as_it_was(stage: Stage) -> None:
    talk = stage.client().open_channel()
    declared(talk, "q", durable=True)
    stage.broker.replace_vhost(VhostDefinition("/", default_queue_type="quorum"))
    assert declared(talk, "q", durable=True) == {}


def test_the_default_type_is_there_again_after_a_restart(quorum: Talk) -> None:
    quorum.stage.journal.commit()
    again = Stage(journal=quorum.stage.journal)
    assert declared(again.client().open_channel(), "q", durable=True) == {"x-queue-type": "quorum"}
