"""Every setting with its type, range and default, and everything that can be declared in the file.

Owns the names: the fields below are the keys of the file, and `VARIABLES` derives those of the environment.
config/amqpd.toml explains them to users.

Always true: neither the `repr` of a `Config` nor a `ConfigError` shows a password.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from amqpd.message import HARD_BODY_LIMIT

CONFIG_FILE_VARIABLE = "AMQPD_CONFIG_FILE"


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` has one line for each problem."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Secret:
    """A text that is never shown in a `repr` or a log; `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)


class Passphrase(Secret):
    """A secret that may be empty, which means that there is none."""

    __slots__ = ()


class StoreUrl(Passphrase):
    """The URL of a database, which may have a password in it; an empty one means that the store is a file."""

    __slots__ = ()


class File(str):
    """The path of a file; an empty one means that there is none."""


class Network(str):
    """An IP address, or a network such as `10.0.0.0/8`."""


def is_loopback(host: str) -> bool:
    """Return whether an IP address is a loopback address: 127.0.0.0/8, also mapped to IPv6, or ::1."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class Listener(str):
    """HOST:PORT, where clients connect. No host means loopback, port 0 a free port."""

    @property
    def host(self) -> str:
        """The name or address, for IPv6 without brackets."""
        return self.rpartition(":")[0].strip("[]") or "127.0.0.1"

    @property
    def port(self) -> int:
        """The port, 0 to 65,535."""
        return int(self.rpartition(":")[2])

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, which needs no name resolution."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_open(self) -> bool:
        """Whether other machines may reach it. A host name other than localhost counts as open."""
        return not is_loopback(self.host) if self.is_address else self.host != "localhost"


Name = Annotated[str, Meta(min_length=1, max_length=255)]       # as everywhere here, lengths are in bytes
VhostOrDefault = Annotated[str, Meta(max_length=255)]
Pattern = Annotated[str, Meta(max_length=1_024)]
Octets = Annotated[int, Meta(ge=1, le=HARD_BODY_LIMIT)]
AuthMechanism = Literal["PLAIN", "AMQPLAIN", "SCRAM-SHA-256", "EXTERNAL", "ANONYMOUS"]
DiskOctets = Annotated[int, Meta(ge=0, le=1 << 50)]


class Log(Struct, frozen=True, kw_only=True):
    """The level and the format of the log on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Login(Struct, frozen=True, kw_only=True):
    """How clients log in. RabbitMQ docs/access-control, rabbitmq_auth_mechanism_ssl."""

    anonymous_user: Annotated[str, Meta(max_length=255)] = ""
    certificate_name: Literal["distinguished_name", "common_name", "subject_alternative_name"] = "distinguished_name"
    certificate_san_type: Literal["dns", "email", "uri", "ip"] = "dns"
    require_tls: bool = False
    rehash_imported: bool = False


class Cluster(Struct, frozen=True, kw_only=True):
    """How nodes that share a store in PostgreSQL reach each other: `listeners` has one address, or none for one node.

    `address` is what others connect to, if that is another one; `secret` has 32 octets at least, beyond loopback.
    """

    listeners: Annotated[tuple[Listener, ...], Meta(max_length=1)] = ()
    address: Annotated[str, Meta(max_length=255)] = ""
    secret: Passphrase = Passphrase("")


class Definitions(Struct, frozen=True, kw_only=True):
    """How the file `load_definitions` is loaded. RabbitMQ docs/definitions."""

    skip_if_unchanged: bool = False


class Limits(Struct, frozen=True, kw_only=True):
    """The limits of one client, so that it cannot harm others, and of all clients. RabbitMQ docs/configure."""

    heartbeat_s: Annotated[int, Meta(ge=0, le=65_535)] = 60
    frame_max: Annotated[int, Meta(ge=4_096, le=16 * 1024 * 1024)] = 131_072
    channel_max: Annotated[int, Meta(ge=1, le=65_535)] = 2_047
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    max_channels: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    max_queues: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000_000
    max_unauthenticated: Annotated[int, Meta(ge=1, le=1_000_000)] = 8_192
    max_unauthenticated_per_address: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_096
    handshake_timeout_s: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    tls_handshake_timeout_s: Annotated[float, Meta(ge=0.1, le=600)] = 5.0
    login_failure_delay_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    max_message_size: Octets = 128 * 1024 * 1024
    login_buffer_size: Annotated[int, Meta(ge=4_096, le=1 << 30)] = 64 * 1024
    incomplete_bodies_size: Octets = 64 * 1024 * 1024
    transaction_operations: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    transaction_size: Annotated[int, Meta(ge=1, le=1 << 40)] = 64 * 1024 * 1024
    outgoing_buffer_size: Octets = 1024 * 1024
    outgoing_timeout_s: Annotated[float, Meta(ge=1, le=86_400)] = 90.0
    consumer_timeout_s: Annotated[float, Meta(ge=0, le=86_400 * 365)] = 1_800.0
    consumers_per_channel: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    unacked_per_consumer: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000
    bindings_per_queue: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    message_memory: Annotated[int, Meta(ge=1, le=1 << 50)] = 64 * 1024 * 1024
    memory_high_watermark: Annotated[float, Meta(ge=0, le=1)] = 0.6
    memory_high_watermark_absolute: DiskOctets = 0
    disk_free_limit: DiskOctets = 128 * 1024 * 1024
    disk_free_limit_relative: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    ballast_size: DiskOctets = 64 * 1024 * 1024


class DefaultPermissions(Struct, frozen=True, kw_only=True):
    """The permissions of the user of the first start in the default vhost."""

    configure: Pattern = ".*"
    write: Pattern = ".*"
    read: Pattern = ".*"


class Declaration(Struct, frozen=True, kw_only=True):
    """The base of everything that the file declares. `where` is like `amqpd.toml line 42: exchanges.orders`."""

    where: str = ""


class TlsName(Declaration, frozen=True, kw_only=True):
    """A certificate for clients that ask for another server name; `*.example.org` stands for any first label."""

    name: Name
    certificate: File
    key: File
    key_password: Passphrase = Passphrase("")


class Tls(Struct, frozen=True, kw_only=True):
    """The listeners for TLS, their certificate, and what is asked of clients. RabbitMQ docs/ssl."""

    listeners: tuple[Listener, ...] = ()
    certificate: File = File()
    key: File = File()
    key_password: Passphrase = Passphrase("")
    ca: File = File()
    client_certificates: Literal["none", "optional", "required"] = "none"
    min_version: Literal["1.2", "1.3"] = "1.2"
    names: tuple[TlsName, ...] = ()


DEFAULT_MANAGEMENT = (Listener("127.0.0.1:15672"),)
DEFAULT_METRICS = (Listener("127.0.0.1:15692"),)


class Management(Struct, frozen=True, kw_only=True):
    """The listeners of the management API, and those of the metrics alone. RabbitMQ docs/management, docs/prometheus.

    Where nobody has set `listeners` or `metrics_listeners`, the program amqpd listens at the default address if that is
    free; a broker inside another program does not. Without a management API, `metrics_listeners` has to be set.
    """

    listeners: tuple[Listener, ...] = DEFAULT_MANAGEMENT
    tls_listeners: tuple[Listener, ...] = ()
    path_prefix: Annotated[str, Meta(max_length=255, pattern="^(/[A-Za-z0-9._~/-]*)?$")] = ""
    disable_stats: bool = False
    enable_queue_totals: bool = False
    metrics_listeners: tuple[Listener, ...] = DEFAULT_METRICS
    metrics_tls_listeners: tuple[Listener, ...] = ()
    metrics_path: Annotated[str, Meta(max_length=255, pattern="^(/[A-Za-z0-9._~-]+)+$")] = "/metrics"
    metrics_per_object: bool = False

    @property
    def is_default(self) -> bool:
        """Whether nobody has set `listeners`."""
        return self.listeners is DEFAULT_MANAGEMENT

    @property
    def has_default_metrics(self) -> bool:
        """Whether nobody has set `metrics_listeners`."""
        return self.metrics_listeners is DEFAULT_METRICS

    @property
    def api(self) -> tuple[Listener, ...]:
        """All listeners of the management API, where users log in."""
        return (*self.listeners, *self.tls_listeners)

    @property
    def plain_metrics(self) -> tuple[Listener, ...]:
        """The listeners of the metrics without TLS, where nobody logs in."""
        return () if self.has_default_metrics and not self.api else self.metrics_listeners

    @property
    def optional(self) -> tuple[Listener, ...]:
        """The listeners without which the program starts as well, with a warning."""
        return (*(self.listeners if self.is_default else ()),
                *(self.plain_metrics if self.has_default_metrics else ()))


Quota = Annotated[int, Meta(ge=-1, le=10_000_000)]              # -1 is no limit


class VhostLimits(Struct, frozen=True, kw_only=True):
    """The limits of a vhost. RabbitMQ docs/vhosts."""

    max_connections: Quota = -1
    max_queues: Quota = -1


class UserLimits(Struct, frozen=True, kw_only=True):
    """The limits of a user. RabbitMQ docs/user-limits."""

    max_connections: Quota = -1
    max_channels: Quota = -1


class DefaultVhostLimits(Declaration, frozen=True, kw_only=True):
    """The limits that a new vhost gets if the pattern is found in its name. RabbitMQ docs/vhosts."""

    pattern: Pattern = ".*"
    max_connections: Quota = -1
    max_queues: Quota = -1


class VhostDeclaration(Declaration, frozen=True, kw_only=True):
    """A vhost. What is None is not said: it stays as it is stored."""

    name: Name
    description: str | None = None
    tags: tuple[Name, ...] | None = None
    default_queue_type: Literal["", "classic", "quorum"] | None = None
    protected_from_deletion: bool | None = None
    limits: VhostLimits | None = None


class Permission(Struct, frozen=True, kw_only=True):
    """The permissions of a user in a vhost; an empty pattern allows nothing. RabbitMQ docs/access-control."""

    vhost: VhostOrDefault = ""
    configure: Pattern
    write: Pattern
    read: Pattern


class TopicPermission(Struct, frozen=True, kw_only=True):
    """The permissions of a user on the routing keys of a topic exchange. RabbitMQ docs/access-control."""

    vhost: VhostOrDefault = ""
    exchange: Name
    write: Pattern
    read: Pattern


class UserDeclaration(Declaration, frozen=True, kw_only=True):
    """A user, with either a password or the hash of one."""

    name: Name
    password: Secret | None = None
    password_hash: Secret | None = None
    hashing_algorithm: Literal[
        "rabbit_password_hashing_sha256", "rabbit_password_hashing_sha512", "rabbit_password_hashing_md5"
    ] = "rabbit_password_hashing_sha256"
    tags: tuple[Name, ...] = ()
    limits: UserLimits | None = None
    permissions: tuple[Permission, ...] = ()
    topic_permissions: tuple[TopicPermission, ...] = ()


class ExchangeDeclaration(Declaration, frozen=True, kw_only=True):
    """A durable exchange."""

    name: Name
    vhost: VhostOrDefault = ""
    type: Literal["direct", "fanout", "topic", "headers"] = "direct"
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, Any] = {}


class QueueDeclaration(Declaration, frozen=True, kw_only=True):
    """A durable queue."""

    name: Name
    vhost: VhostOrDefault = ""
    auto_delete: bool = False
    arguments: dict[str, Any] = {}


class BindingDeclaration(Declaration, frozen=True, kw_only=True):
    """A binding, durable if both ends are."""

    source: Name
    destination: Name
    vhost: VhostOrDefault = ""
    destination_type: Literal["queue", "exchange"] = "queue"
    routing_key: Annotated[str, Meta(max_length=255)] = ""
    arguments: dict[str, Any] = {}


class PolicyDeclaration(Declaration, frozen=True, kw_only=True):
    """A policy of a vhost, or an operator policy. The broker checks its definition."""

    name: Name
    vhost: VhostOrDefault = ""
    pattern: Pattern
    definition: dict[str, Any]
    priority: Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)] = 0
    apply_to: Literal["all", "queues", "classic_queues", "quorum_queues", "exchanges"] = "all"


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration. Where a declaration named no vhost, `load` has put `default_vhost`."""

    listeners: tuple[Listener, ...] = (Listener("127.0.0.1:5672"),)
    data_dir: Path = Path("amqpd-data")
    store: StoreUrl = StoreUrl("")
    node_name: Annotated[str, Meta(max_length=255)] = ""
    cluster: Cluster = Cluster()
    memory: bool = False
    durability: Literal["power", "process"] = "power"
    default_user: Name = "guest"
    default_password: Secret = Secret("guest")
    default_vhost: Name = "/"
    default_user_tags: tuple[Name, ...] = ("administrator",)
    default_permissions: DefaultPermissions = DefaultPermissions()
    default_queue_type: Literal["classic", "quorum"] = "classic"
    load_definitions: File = File()
    definitions: Definitions = Definitions()
    loopback_users: tuple[Name, ...] = ("guest",)
    auth_mechanisms: Annotated[tuple[AuthMechanism, ...], Meta(min_length=1)] = ("AMQPLAIN", "PLAIN")
    login: Login = Login()
    proxy_protocol_from: tuple[Network, ...] = ()
    log: Log = Log()
    tls: Tls = Tls()
    management: Management = Management()
    limits: Limits = Limits()
    default_vhost_limits: tuple[DefaultVhostLimits, ...] = ()
    vhosts: tuple[VhostDeclaration, ...] = ()
    users: tuple[UserDeclaration, ...] = ()
    policies: tuple[PolicyDeclaration, ...] = ()
    operator_policies: tuple[PolicyDeclaration, ...] = ()
    exchanges: tuple[ExchangeDeclaration, ...] = ()
    queues: tuple[QueueDeclaration, ...] = ()
    bindings: tuple[BindingDeclaration, ...] = ()

    @property
    def login_listeners(self) -> tuple[Listener, ...]:
        """The listeners for AMQP, for AMQP over TLS, and of the management API, as far as they are set."""
        return (*self.listeners, *self.tls.listeners, *self.management.api)

    @property
    def all_listeners(self) -> tuple[Listener, ...]:
        """All listeners: those where users log in, and those of the metrics."""
        return (*self.login_listeners, *self.management.plain_metrics, *self.management.metrics_tls_listeners)

    @property
    def has_tls(self) -> bool:
        """Whether any listener is for TLS."""
        return bool(self.tls.listeners or self.management.tls_listeners or self.management.metrics_tls_listeners)


def _settings(kind: type[Struct], prefix: str = "") -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if isinstance(field.default, Struct):
            settings |= _settings(type(field.default), f"{field.name}.")
        elif not _has_declarations(field.type):
            settings[prefix + field.name] = field.type
    return settings


def _has_declarations(kind: Any) -> bool:
    """Return whether a type is a list of declarations."""
    return any(isinstance(item, type) and issubclass(item, Declaration) for item in get_args(kind))


# Key path → type, of every single value; declarations are not included. And variable → key path.
SETTINGS = _settings(Config)
VARIABLES = {"AMQPD_" + path.upper().replace(".", "_"): path for path in SETTINGS}


def effective(config: Config) -> dict[str, Any]:
    """Return every setting by its key path, as JSON has it; a secret is "***". Declarations are not included."""
    return {path: _plain(value_at(config, path)) for path in SETTINGS}


def value_at(config: Config, path: str) -> Any:
    """Return the value of a setting, or of a kind of declarations, by its key path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, (str, Path)) else value
