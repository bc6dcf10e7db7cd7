"""The configuration: a TOML file, the environment and the command line become one frozen `Config`.

`settings` holds every setting with its type, range and default; `sources` finds the values and knows where each of them
stands; `reading` converts the values and reports errors; `loading` puts the parts together. The server checks whether a
declared queue agrees with a stored one, and names the place of the declaration by its `where`. A `rabbitmq.conf` is
found and read by `rabbitmq_files`, and translated by `rabbitmq`; `conversion` prints it as TOML.

Later sources override earlier ones: defaults, rabbitmq.conf, file, RABBITMQ_…, AMQPD_…, command line.
"""

from __future__ import annotations

from amqpd.config.loading import Examination, examine, load, usable
from amqpd.config.settings import (
    BindingDeclaration,
    Config,
    ConfigError,
    DefaultPermissions,
    DefaultVhostLimits,
    ExchangeDeclaration,
    File,
    Limits,
    Listener,
    Log,
    Login,
    Management,
    Network,
    Passphrase,
    Permission,
    PolicyDeclaration,
    QueueDeclaration,
    Secret,
    Tls,
    TlsName,
    UserDeclaration,
    UserLimits,
    VhostDeclaration,
    VhostLimits,
)

__all__ = [
    "BindingDeclaration",
    "Config",
    "ConfigError",
    "DefaultPermissions",
    "DefaultVhostLimits",
    "Examination",
    "ExchangeDeclaration",
    "File",
    "Limits",
    "Listener",
    "Log",
    "Login",
    "Management",
    "Network",
    "Passphrase",
    "Permission",
    "PolicyDeclaration",
    "QueueDeclaration",
    "Secret",
    "Tls",
    "TlsName",
    "UserDeclaration",
    "UserLimits",
    "VhostDeclaration",
    "VhostLimits",
    "examine",
    "load",
    "usable",
]
