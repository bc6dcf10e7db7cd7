"""Who can reach the broker: a start with guest's password alone is not open to the network, and the log tells what is.

Everyone knows that password. RabbitMQ lets guest log in from its own machine only, which is the default here too; but a
broker that listens to the network and has no other user is open by mistake, or nobody can use it.

RabbitMQ docs/access-control#loopback-users, docs/production-checklist.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import password_matches
from amqpd.config import Config, Listener
from amqpd.wording import counted

GUEST = "guest"


def refusal(config: Config, has_guest_alone: Callable[[], bool], *, is_first_start: bool) -> str | None:
    """Return why a broker whose only user may be guest must not listen as configured, with the remedy.

    None if it may; also if `loopback_users` lets guest log in from everywhere, since then it is wanted.
    `has_guest_alone` may compute a hash, which takes long: it is called only if the answer depends on it.
    """
    listener = next((one for one in config.login_listeners if one.is_open), None)
    if listener is None or GUEST not in config.loopback_users or not has_guest_alone():
        return None
    if is_first_start:
        remedy = "set default_user and default_password (AMQPD_DEFAULT_USER, AMQPD_DEFAULT_PASSWORD)"
    else:
        remedy = "add a user with [[users]], or with 'amqpctl add_user' while the broker listens to this machine only"
    return (f"{listener} would be open to the network, but the only user is guest with the password guest, who may "
            f"connect from this machine only: {remedy}, or set loopback_users = [] to let guest in from everywhere")


def has_guest_alone(users: Collection[UserDefinition]) -> bool:
    """Return whether nobody but guest can log in, with the password guest."""
    return all(user.name == GUEST for user in users) and all(_has_known_password(user) for user in users)


def begins_with_guest_alone(config: Config) -> bool:
    """Return whether a first start with this configuration makes no user but guest, with the password guest.

    Which users a file of definitions has is not known before it is loaded.
    """
    return not config.users and not config.load_definitions and (
        config.default_user, config.default_password.reveal()) == (GUEST, GUEST)


def describe(
    config: Config, users: Collection[UserDefinition], api: Sequence[Listener] = (), metrics: Sequence[Listener] = ()
) -> str:
    """Return in one line what is open to whom, for the log.

    `api` are the listeners of the management API, `metrics` those of the metrics alone.
    """
    names = {user.name for user in users}
    local = _listed(config, api, metrics, are_open=False)
    network = _listed(config, api, metrics, are_open=True)
    parts = []
    if network:
        parts.append(f"open to the network: {network}")
    if local:
        parts.append(f"open to this machine: {local}")
    parts.append(counted(len(users), "user"))
    only_local = [name for name in config.loopback_users if name in names]
    if network and only_local:
        parts.append(f"from this machine only: {', '.join(only_local)}")
    if "ANONYMOUS" in config.auth_mechanisms and config.login.anonymous_user in names:
        parts.append(f"without a password, as {config.login.anonymous_user}: everyone who can connect")
    return "; ".join(parts)


def warnings(config: Config, users: Collection[UserDefinition]) -> Iterator[str]:
    """Yield what is open, or closed, by mistake perhaps."""
    names = {user.name for user in users}
    if any(one.is_open for one in config.login_listeners):
        if names <= {*config.loopback_users}:
            yield ("nobody can log in from the network: loopback_users has all users; add another user, or change "
                   "loopback_users")
        if GUEST not in config.loopback_users and any(map(_has_known_password, users)):
            yield "guest can log in from the network with the password guest: change it, or add guest to loopback_users"
    if "ANONYMOUS" in config.auth_mechanisms and config.login.anonymous_user not in names:
        yield (f"nobody can log in with ANONYMOUS: login.anonymous_user is '{config.login.anonymous_user}', and there "
               "is no such user; add it, or change the setting")


def _has_known_password(user: UserDefinition) -> bool:
    return user.name == GUEST and password_matches(user, GUEST)


def _listed(config: Config, api: Sequence[Listener], metrics: Sequence[Listener], *, are_open: bool) -> str:
    plain = [str(one) for one in config.listeners if one.is_open == are_open]
    tls = [f"{one} with TLS" for one in config.tls.listeners if one.is_open == are_open]
    apis = [f"the management API on {one}" for one in api if one.is_open == are_open]
    of_metrics = [f"metrics, without a login, on {one}" for one in metrics if one.is_open == are_open]
    return ", ".join([*plain, *_with_certificates(config, tls), *apis, *of_metrics])


def _with_certificates(config: Config, listed: Sequence[str]) -> Sequence[str]:
    if config.tls.client_certificates != "required":
        return listed
    return [f"{one} and a client certificate" for one in listed]
