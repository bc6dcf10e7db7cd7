"""Who can reach the broker: a start with guest's password alone is not open to the network, and the log tells what is.

Everyone knows that password. RabbitMQ lets guest log in from its own machine only, which is the default here too; but a
broker that listens to the network and has no other user is open by mistake, or nobody can use it.

RabbitMQ docs/access-control#loopback-users, docs/production-checklist.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import password_matches
from amqpd.config import Config
from amqpd.config.settings import Listener
from amqpd.server.login import is_loopback
from amqpd.wording import counted

GUEST = "guest"


def is_open(listener: Listener) -> bool:
    """Return whether other machines may reach this listener. A host name other than localhost counts as open."""
    return not is_loopback(listener.host) if listener.is_address else listener.host != "localhost"


def refusal(config: Config, *, has_guest_alone: bool) -> str | None:
    """Return why a broker whose only user may be guest must not listen as configured, with the remedy.

    None if it may; also if `loopback_users` lets guest log in from everywhere, since then it is wanted.
    """
    listener = next(filter(is_open, (*config.listeners, *config.tls.listeners)), None)
    if listener is None or GUEST not in config.loopback_users or not has_guest_alone:
        return None
    return (f"{listener} would be open to the network, but the only user is guest with the password guest, who may "
            "connect from this machine only: add a user ([[users]], or AMQPD_DEFAULT_USER and AMQPD_DEFAULT_PASSWORD "
            "at the first start), or set loopback_users = [] to let guest in from everywhere")


def has_guest_alone(users: Collection[UserDefinition]) -> bool:
    """Return whether nobody but guest can log in, with the password guest."""
    return all(user.name == GUEST for user in users) and all(password_matches(user, GUEST) for user in users)


def begins_with_guest_alone(config: Config) -> bool:
    """Return whether a first start with this configuration makes no user but guest, with the password guest."""
    return not config.users and (config.default_user, config.default_password.reveal()) == (GUEST, GUEST)


def describe(config: Config, user_count: int) -> str:
    """Return in one line what is open to whom, for the log."""
    local = _listed(config, are_open=False)
    network = _listed(config, are_open=True)
    parts = []
    if network:
        parts.append(f"open to the network: {network}")
    if local:
        parts.append(f"open to this machine: {local}")
    parts.append(counted(user_count, "user"))
    if network and config.loopback_users:
        parts.append(f"from this machine only: {', '.join(config.loopback_users)}")
    if "ANONYMOUS" in config.auth_mechanisms:
        parts.append(f"without a password, as {config.login.anonymous_user}: everyone who can connect")
    return "; ".join(parts)


def _listed(config: Config, *, are_open: bool) -> str:
    plain = [str(one) for one in config.listeners if is_open(one) == are_open]
    tls = [f"{one} with TLS" for one in config.tls.listeners if is_open(one) == are_open]
    return ", ".join([*plain, *_with_certificates(config, tls)])


def _with_certificates(config: Config, listed: Sequence[str]) -> Sequence[str]:
    if config.tls.client_certificates != "required":
        return listed
    return [f"{one} and a client certificate" for one in listed]
