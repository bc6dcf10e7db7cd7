"""The configuration: a TOML file, the environment and the command line become one frozen `Config`.

`settings` holds every setting with its type, range and default; `sources` finds the values and knows where each
one stood; `reading` makes the one from the other and words what is wrong; `loading` puts them together. Whether a
declared queue agrees with a stored one is the server's matter: it says so with the declaration's `where`.

What is named later wins: defaults, file, RABBITMQ_DEFAULT_…, AMQPD_…, command line.
"""

from __future__ import annotations

from amqpd.config.loading import listener_places, load
from amqpd.config.settings import (
    BindingDeclaration,
    Config,
    ConfigError,
    ExchangeDeclaration,
    Limits,
    Listener,
    Log,
    Permission,
    PolicyDeclaration,
    QueueDeclaration,
    Secret,
    UserDeclaration,
    VhostDeclaration,
)

__all__ = [
    "BindingDeclaration",
    "Config",
    "ConfigError",
    "ExchangeDeclaration",
    "Limits",
    "Listener",
    "Log",
    "Permission",
    "PolicyDeclaration",
    "QueueDeclaration",
    "Secret",
    "UserDeclaration",
    "VhostDeclaration",
    "listener_places",
    "load",
]
