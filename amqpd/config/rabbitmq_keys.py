"""The keys of `rabbitmq.conf`: what each of them is in amqpd, or why it has no effect.

The first row that matches a key counts. `$name` stands for one part of a key, `*` for one or more parts.
docs/rabbitmq-conf.md shows this table to users. RabbitMQ's schemas of 3.10 and 4 have the keys and their types.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

from amqpd.config.settings import AuthMechanism

Parts = tuple[str, ...]

NO_LIMIT = float("inf")         # the largest value that a setting allows
PORT = "a port, or an IP address and a port, such as 127.0.0.1:5672"
LEVELS = {
    "debug": "debug", "info": "info", "notice": "warning", "warning": "warning", "error": "error",
    "critical": "error", "alert": "error", "emergency": "error", "none": "error"}
SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
DECIMAL_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
BINARY_SIZES = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


class Refused(ValueError):
    """A value of the wrong form; the text says which values are allowed."""


@dataclass(frozen=True)
class Whole:
    """Reads a whole number of a range; `unlimited` is the text that means no limit."""

    least: int = 0
    most: int | None = None
    unlimited: str | None = None

    def __call__(self, text: str) -> int | float:
        """Return the number. Raises Refused."""
        if text == self.unlimited:
            return NO_LIMIT
        if re.fullmatch(r"[+-]?[0-9]{1,20}", text) and self.least <= int(text) <= (self.most or int(text)):
            return int(text)
        upper = f" to {self.most}" if self.most else " on"
        other = f", or {self.unlimited}" if self.unlimited and not self.unlimited.isdigit() else ""
        raise Refused(f"a whole number from {self.least}{upper}{other}")


@dataclass(frozen=True)
class Milliseconds:
    """Reads a whole number of milliseconds as seconds."""

    least: int = 0
    unlimited: str | None = None

    def __call__(self, text: str) -> float:
        """Return the seconds. Raises Refused."""
        return Whole(self.least, unlimited=self.unlimited)(text) / 1_000


def frame_size(text: str) -> int | float:
    """Read a number of bytes; here a KB has 1,024 of them, as RabbitMQ takes it for frames. 0 is no limit."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(kb|KB|mb|MB|gb|GB)", text)
    if match:
        return int(float(match[1]) * SIZES[match[2][0].lower()])
    if re.fullmatch(r"[0-9]{1,20}", text):
        return int(text) or NO_LIMIT
    raise Refused("a whole number of bytes, which may have the unit KB, MB or GB")


def memory_size(text: str) -> int:
    """Read a number of bytes; here a KB has 1,000 of them and a KiB 1,024, as RabbitMQ takes it for memory and disk."""
    match = re.fullmatch(r"([0-9]{1,20})([A-Za-z]{0,3})", text)
    factor = (SIZES | DECIMAL_SIZES | BINARY_SIZES).get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise Refused("a whole number of bytes, which may have a unit such as MB, MiB, GB or GiB")
    return int(match[1]) * factor


def fraction(text: str) -> float:
    """Read a number that is not negative."""
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", text):
        raise Refused("a number, such as 0.6")
    return float(text)


def boolean(text: str) -> bool:
    """Read `true` or `false`."""
    if text not in ("true", "false"):
        raise Refused("true or false")
    return text == "true"


def plain_text(text: str) -> str:
    """Take the text as it stands."""
    return text


def definitions_file(text: str) -> str:
    """Read the path of a file, and `none` as no file."""
    return "" if text == "none" else text


def none(text: str) -> list[str]:
    """Read `none` as an empty list."""
    if text != "none":
        raise Refused("none")
    return []


def listeners(text: str) -> list[str]:
    """Read a port, which means every address of this machine, or an IP address and a port.

    A UNIX socket, as RabbitMQ 4 writes it, is left out.
    """
    if text.startswith(("unix:", "local:")):
        return []
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise Refused(PORT)
    return [f"{address}:{int(port)}" for address in ([_address(host)] if host else every_address())]


def port(text: str) -> int:
    """Read the number of a port."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65_535:
        raise Refused("a whole number from 0 to 65535")
    return int(text)


def ip_address(text: str) -> str:
    """Read an IP address, and write it as in a URL."""
    try:
        return _address(text)
    except Refused:
        raise Refused("an IP address, such as 127.0.0.1") from None


def without_tls(text: str) -> bool:
    """Read `false`: a listener that RabbitMQ would have with TLS must not be without."""
    if text != "false":
        raise Refused("false; for a listener with TLS, write management.ssl.port and management.ssl.ip")
    return False


def metrics_path(text: str) -> str:
    """Read the path of the metrics, which may have a slash at its end."""
    path = "/" + text.strip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) or len(path) > 255:
        raise Refused("a path, such as /metrics")
    return path


def every_network(text: str) -> list[str]:
    """Read `true` as the networks of all addresses, and `false` as none."""
    return ["0.0.0.0/0", "::/0"] if boolean(text) else []


def every_address() -> list[str]:
    """Return the addresses that stand for all addresses of this machine."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return ["0.0.0.0"]
    return ["0.0.0.0", "[::]"]


def _address(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise Refused(PORT) from None
    return f"[{address}]" if address.version == 6 else str(address)


@dataclass(frozen=True)
class Choice:
    """Reads one of several words as the value of a setting."""

    values: tuple[tuple[str, str], ...]

    def __call__(self, text: str) -> str:
        """Return the value. Raises Refused."""
        values = dict(self.values)
        if text not in values:
            *words, last = values
            raise Refused(f"{', '.join(words)} or {last}" if words else last)
        return values[text]


def words(*same: str, **others: str) -> Choice:
    """Return a choice of words that are the values themselves, and of words with other values."""
    return Choice((*((word, word) for word in same), *others.items()))


def mechanisms(text: str) -> list[str]:
    """Read the name of a mechanism; as in RabbitMQ, one that there is not is left out."""
    return [text] if text in get_args(AuthMechanism) else []


def tls_version(text: str) -> list[str]:
    """Read a version of TLS; one that amqpd does not offer is left out."""
    return {"tlsv1.2": ["1.2"], "tlsv1.3": ["1.3"]}.get(text, [])


def queue_type(text: str) -> str | list[str]:
    """Read a type of queues, or the name of its module in RabbitMQ; streams are left out."""
    kind = text.removeprefix("rabbit_").removesuffix("_queue")
    if kind not in ("classic", "quorum", "stream"):
        raise Refused("classic, quorum or stream")
    return [] if kind == "stream" else kind


# These read what amqpd does not have as an empty list.
LEAVES_OUT: tuple[Callable[[str], Any], ...] = (listeners, mechanisms, tls_version, queue_type)


class Key(NamedTuple):
    """One row of the table.

    With `setting` the value is used: `convert` reads it, and a list setting gets the values of all keys of this row,
    if `is_numbered` by the number in the key; or, if `is_named`, the last parts of the keys that are true. Without a
    setting `remark` says why the key has no effect, and the values of `harmless` need no warning. `rank` decides
    between rows with the same setting: the higher one is used, among equals the later line. `caution` is a warning
    about what the value does.
    """

    name: str
    setting: str = ""
    convert: Callable[[str], Any] = plain_text
    remark: str = ""
    is_named: bool = False
    is_numbered: bool = False
    rank: int = 0
    harmless: tuple[str, ...] = ()
    caution: str = ""

    def matches(self, key: Parts) -> bool:
        """Return whether the row is about this key."""
        wanted = self.name.split(".")
        if wanted[-1] == "*":
            wanted, key = wanted[:-1], key[:len(wanted) - 1] if len(key) >= len(wanted) else ()
        return len(wanted) == len(key) and all(
            word.startswith("$") or word == part for word, part in zip(wanted, key))


ALONE = "amqpd has no cluster"
ERLANG = "it sets how Erlang's runtime works"
STORE = "amqpd has another store"
LOG = "the log goes to stderr"
PLUGIN = "amqpd does not have this plugin"
HTTP = "amqpd has no such setting of the management API"
HEADERS = "amqpd chooses the headers of its answers"
OAUTH = "amqpd has no OAuth"
LEVEL = words(**LEVELS)


def _listener_keys(prefix: str, setting: str, port_of_protocol: int) -> Iterator[Key]:
    """Yield the rows of one HTTP listener: its address and port, with TLS its certificate, and the rest."""
    yield Key(f"{prefix}.port", setting, port, f"{port_of_protocol} without it")
    yield Key(f"{prefix}.ip", setting, ip_address, "every address without it")
    if prefix.endswith(".ssl"):
        yield from _certificate_keys(prefix)
    yield Key(f"{prefix}.*", remark="amqpd chooses the other options of HTTP and TLS")


def _certificate_keys(prefix: str) -> Iterator[Key]:
    """Yield the rows of the certificate of one HTTP listener; amqpd has the same for all listeners."""
    for name, setting in (("certfile", "certificate"), ("keyfile", "key"), ("password", "key_password"),
                          ("cacertfile", "ca")):
        yield Key(f"{prefix}.{name}", f"tls.{setting}", rank=-1,
                  remark=f"for all listeners; not used beside `ssl_options.{name}`")
    yield Key(f"{prefix}.verify", remark="`ssl_options.verify` counts for all listeners", harmless=("verify_none",))
    yield Key(f"{prefix}.fail_if_no_peer_cert", remark="that of `ssl_options` counts for all listeners",
              harmless=("false",))
    yield Key(f"{prefix}.versions.$n", remark="those of `ssl_options` count for all listeners")


KEYS = (
    # Listeners
    Key("listeners.tcp", "listeners", none, "none: no listener without TLS", rank=1),
    Key("listeners.tcp.$name", "listeners", listeners, "a port alone means every address"),
    Key("listeners.ssl", "tls.listeners", none, "none: no listener with TLS", rank=1),
    Key("listeners.ssl.$name", "tls.listeners", listeners, "a port alone means every address"),
    Key("ssl_options", remark="each of its keys counts by itself", harmless=("none",)),
    Key("ssl_options.certfile", "tls.certificate"),
    Key("ssl_options.keyfile", "tls.key"),
    Key("ssl_options.password", "tls.key_password"),
    Key("ssl_options.cacertfile", "tls.ca"),
    Key("ssl_options.verify", "tls.client_certificates", words("verify_none", "verify_peer"),
        "verify_none: `none`, verify_peer: `optional`"),
    Key("ssl_options.fail_if_no_peer_cert", "tls.client_certificates", boolean, "true, beside verify_peer: `required`"),
    Key("ssl_options.versions.$n", "tls.min_version", tls_version, "the lowest of tlsv1.2 and tlsv1.3 that is listed"),
    Key("ssl_options.*", remark="amqpd chooses the other options of TLS"),
    Key("ssl_handshake_timeout", "limits.tls_handshake_timeout_s", Milliseconds(1), "milliseconds"),
    Key("ssl_cert_login_from", "login.certificate_name", words(
        "distinguished_name", "common_name", "subject_alternative_name", subject_alt_name="subject_alternative_name")),
    Key("ssl_cert_login_san_type", "login.certificate_san_type", words("dns", "email", "uri", "ip")),
    Key("ssl_cert_login_san_index", remark="the first name of the type is taken", harmless=("0",)),
    Key("ssl_allow_poodle_attack", remark="amqpd never allows it", harmless=("false",)),
    Key("proxy_protocol", "proxy_protocol_from", every_network, "true: a PROXY header is expected from every address",
        caution="lets every client say from which address it comes; name the proxies alone in proxy_protocol_from"),
    Key("num_acceptors.*", remark="one event loop accepts all connections"),
    Key("tcp_listen_options", remark="amqpd sets the options of its sockets itself"),
    Key("tcp_listen_options.*", remark="amqpd sets the options of its sockets itself"),
    Key("socket_writer.gc_threshold", remark=ERLANG),
    Key("reverse_dns_lookups", remark="connections are named by their addresses", harmless=("false",)),
    Key("handshake_timeout", "limits.handshake_timeout_s", Milliseconds(unlimited="infinity"), "milliseconds"),
    # Users
    Key("default_user", "default_user"),
    Key("default_pass", "default_password"),
    Key("default_vhost", "default_vhost"),
    Key("default_user_tags.$tag", "default_user_tags", boolean, "replaces the tag administrator", is_named=True),
    Key("default_permissions.configure", "default_permissions.configure"),
    Key("default_permissions.write", "default_permissions.write"),
    Key("default_permissions.read", "default_permissions.read"),
    Key("loopback_users", "loopback_users", none, "none: every user may connect from everywhere", rank=1),
    Key("loopback_users.$user", "loopback_users", boolean, "replaces guest", is_named=True),
    Key("auth_mechanisms.$n", "auth_mechanisms", mechanisms, "in the order of the numbers", is_numbered=True),
    Key("auth_backends.$n", remark="users are those of amqpd's own store",
        harmless=("internal", "rabbit_auth_backend_internal")),
    Key("auth_backends.$n.authn", remark="users are those of amqpd's own store",
        harmless=("internal", "rabbit_auth_backend_internal")),
    Key("auth_backends.$n.authz", remark="users are those of amqpd's own store",
        harmless=("internal", "rabbit_auth_backend_internal")),
    Key("password_hashing_module", remark="passwords are hashed by scrypt; imported hashes stay as they are"),
    Key("credential_validator.*", remark="amqpd takes every password that is not empty"),
    Key("anonymous_login_user", "login.anonymous_user", lambda text: "" if text == "none" else text,
        "none: no such user; ANONYMOUS has to be one of the mechanisms"),
    Key("anonymous_login_pass", remark="an anonymous login needs no password"),
    Key("default_users.*", remark="declare users in amqpd's TOML file"),
    # Limits
    Key("heartbeat", "limits.heartbeat_s", Whole(), "seconds"),
    Key("frame_max", "limits.frame_max", frame_size, "bytes; a KB has 1,024; 0 is the largest value"),
    Key("channel_max", "limits.channel_max", Whole(unlimited="0"), "0 is the largest value"),
    Key("max_channels_per_connection", "limits.channel_max", Whole(unlimited="0"), "0 is the largest value"),
    Key("channel_max_per_node", "limits.max_channels", Whole(unlimited="0"), "0 is the largest value"),
    Key("consumer_max_per_channel", "limits.consumers_per_channel", Whole(1, unlimited="infinity")),
    Key("connection_max", "limits.max_connections", Whole(1, unlimited="infinity")),
    Key("max_connections", "limits.max_connections", Whole(1, unlimited="infinity")),
    Key("max_message_size", "limits.max_message_size", Whole(1, 536_870_912), "bytes"),
    Key("consumer_timeout", "limits.consumer_timeout_s", Milliseconds(1), "milliseconds"),
    Key("vm_memory_high_watermark.relative", "limits.memory_high_watermark", fraction, "a fraction of the memory"),
    Key("vm_memory_high_watermark.absolute", "limits.memory_high_watermark_absolute", memory_size,
        "bytes or units; not used beside `relative`"),
    Key("disk_free_limit.relative", "limits.disk_free_limit_relative", fraction, "a multiple of the memory"),
    Key("disk_free_limit.absolute", "limits.disk_free_limit", memory_size,
        "bytes or units; not used beside `relative`"),
    Key("vhost_max", remark="amqpd has no such limit yet"),
    Key("cluster_queue_limit", "limits.max_queues", Whole(1, unlimited="infinity")),
    Key("cluster_exchange_limit", remark="amqpd has no such limit yet"),
    Key("default_limits.vhosts.$name.*", "default_vhost_limits", remark="of a new vhost; the first match counts"),
    Key("initial_frame_max", remark="before a login, a frame has at most 4,096 bytes"),
    Key("session_max_per_connection", remark="amqpd does not speak AMQP 1.0"),
    Key("link_max_per_session", remark="amqpd does not speak AMQP 1.0"),
    Key("vm_memory_high_watermark_paging_ratio", remark="`limits.message_memory` says when messages are paged out"),
    Key("vm_memory_calculation_strategy", remark="amqpd takes the memory of its process", harmless=("rss",)),
    Key("total_memory_available_override_value", remark="amqpd takes the memory of the machine or its container"),
    Key("memory_monitor_interval", remark="amqpd chooses the interval"),
    # Queues and policies
    Key("default_policies.operator.$name.*", "operator_policies",
        remark="a policy of the default vhost, if `vhost_pattern` matches it"),
    Key("default_queue_type", "default_queue_type", queue_type, "of vhosts that have no default type themselves"),
    Key("queue_master_locator", remark=ALONE),
    Key("queue_leader_locator", remark=ALONE),
    Key("queue_index_embed_msgs_below", remark=STORE),
    Key("classic_queue.*", remark=STORE),
    Key("quorum_queue.*", remark=STORE),
    Key("raft.*", remark=STORE),
    Key("message_store_shutdown_timeout", remark=STORE),
    Key("metadata_store.*", remark=STORE),
    Key("message_interceptors.*", remark="amqpd has no interceptors"),
    Key("channel_interceptor.*", remark="amqpd has no interceptors"),
    Key("deprecated_features.permit.*", remark="amqpd has no features that can be turned off"),
    # Definitions
    Key("load_definitions", "load_definitions", definitions_file, "one file; none: no file", rank=2),
    Key("definitions.local.path", "load_definitions", definitions_file,
        "one file; not used beside `load_definitions`", rank=1),
    Key("definitions.skip_if_unchanged", "definitions.skip_if_unchanged", boolean),
    Key("definitions.import_backend", remark="amqpd loads a local file", harmless=(
        "local_filesystem", "local", "rabbit_definitions_import_local_filesystem")),
    Key("definitions.*", remark="amqpd loads a local file"),
    # The log
    Key("log.console", remark="amqpd always logs to stderr", harmless=("true",)),
    Key("log.console.level", "log.level", LEVEL, "the nearest of amqpd's levels", rank=1),
    Key("log.console.formatter", "log.format", words(plaintext="text", json="json")),
    Key("log.file", remark=LOG, harmless=("false",)),
    Key("log.file.level", "log.level", LEVEL, "not used beside `log.console.level`"),
    Key("log.*", remark=LOG),
    # The management API and the metrics
    Key("management.load_definitions", "load_definitions", definitions_file, "one file; not used beside the others"),
    *_listener_keys("management.tcp", "management.listeners", 15_672),
    *_listener_keys("management.ssl", "management.tls_listeners", 15_671),
    Key("management.listener.port", "management.listeners", port, "15672 without it; not used beside `management.tcp`",
        rank=-1),
    Key("management.listener.ip", "management.listeners", ip_address, "every address without it; as the port", rank=-1),
    Key("management.listener.ssl", "management.listeners", without_tls, "false; for TLS, write `management.ssl.port`",
        rank=-1),
    Key("management.listener.*", remark="write `management.tcp` and `management.ssl` instead"),
    Key("management.path_prefix", "management.path_prefix"),
    Key("management.disable_stats", "management.disable_stats", boolean),
    Key("management.enable_queue_totals", "management.enable_queue_totals", boolean, "beside `disable_stats`"),
    Key("management.rates_mode", remark="rates are those of `basic`; `management.disable_stats` turns them off",
        harmless=("basic",)),
    Key("management.sample_retention_policies.*", remark="samples are kept for a day, as by RabbitMQ's defaults"),
    Key("management.http.max_body_size", remark="amqpd has a limit for each route, of 1 MiB to 256 MiB"),
    Key("management.http_log_dir", remark="amqpd writes no log of requests", harmless=("none",)),
    Key("management.login_session_timeout", remark="amqpd chooses how long a session lasts"),
    Key("management.disable_basic_auth", remark="programs log in with it", harmless=("false",)),
    Key("management.db_cache_multiplier", remark="amqpd has no such cache"),
    Key("management.cors.*", remark="amqpd lets no page of another site use the API", harmless=("none",)),
    Key("management.csp.policy", remark=HEADERS),
    Key("management.hsts.policy", remark=HEADERS),
    Key("management.headers.*", remark=HEADERS),
    Key("management.enable_uaa", remark=OAUTH, harmless=("false",)),
    Key("management.uaa_client_id", remark=OAUTH),
    Key("management.uaa_location", remark=OAUTH),
    Key("management.oauth_enabled", remark=OAUTH, harmless=("false",)),
    Key("management.*", remark=HTTP),
    Key("management_agent.disable_metrics_collector", "management.disable_stats", boolean,
        "the same as `management.disable_stats`, and not used beside it", rank=-1),
    Key("management_agent.*", remark=HTTP),
    *_listener_keys("prometheus.tcp", "management.metrics_listeners", 15_692),
    *_listener_keys("prometheus.ssl", "management.metrics_tls_listeners", 15_691),
    Key("prometheus.path", "management.metrics_path", metrics_path),
    Key("prometheus.return_per_object_metrics", "management.metrics_per_object", boolean),
    Key("prometheus.filter_aggregated_queue_metrics_pattern", remark="sums are over all queues"),
    Key("prometheus.*", remark=HTTP),
    Key("http_dispatch.*", remark=HTTP),
    Key("collect_statistics", remark="`management.disable_stats` turns statistics off", harmless=("coarse", "fine")),
    Key("collect_statistics_interval", remark="amqpd takes samples each 5 seconds", harmless=("5000",)),
    # What amqpd does not have
    Key("cluster_name", remark=ALONE),
    Key("cluster_tags.*", remark=ALONE),
    Key("node_tags.*", remark=ALONE),
    Key("cluster_formation.*", remark=ALONE),
    Key("cluster_partition_handling", remark=ALONE),
    Key("cluster_partition_handling.*", remark=ALONE),
    Key("cluster_keepalive_interval", remark=ALONE),
    Key("mirroring_sync_batch_size", remark=ALONE),
    Key("mirroring_sync_max_throughput", remark=ALONE),
    Key("mnesia_table_loading_retry_limit", remark=ALONE),
    Key("mnesia_table_loading_retry_timeout", remark=ALONE),
    Key("net_ticktime", remark=ALONE),
    Key("distribution.*", remark=ALONE),
    Key("delegate_count", remark=ERLANG),
    Key("default_worker_pool_size", remark=ERLANG),
    Key("background_gc_enabled", remark=ERLANG),
    Key("background_gc_target_interval", remark=ERLANG),
    Key("erlang.*", remark=ERLANG),
    Key("hipe_compile", remark=ERLANG),
    Key("sysmon_handler.*", remark=ERLANG),
    Key("vhost_restart_strategy", remark="vhosts are not started one by one"),
    Key("product.*", remark="amqpd says its own name"),
    Key("motd_file", remark="amqpd prints no message of the day"),
    Key("stream.*", remark="amqpd does not speak the stream protocol"),
    Key("amqp1_0.*", remark="amqpd does not speak AMQP 1.0"),
    Key("mqtt.*", remark=PLUGIN),
    Key("web_mqtt.*", remark=PLUGIN),
    Key("stomp.*", remark=PLUGIN),
    Key("web_stomp.*", remark=PLUGIN),
    Key("auth_ldap.*", remark=PLUGIN),
    Key("auth_http.*", remark=PLUGIN),
    Key("auth_cache.*", remark=PLUGIN),
    Key("auth_oauth2.*", remark=PLUGIN),
    Key("trust_store.*", remark=PLUGIN),
    Key("event_exchange.*", remark=PLUGIN),
    Key("shovel.*", remark=PLUGIN),
    Key("federation.*", remark=PLUGIN),
    Key("aws.*", remark=PLUGIN),
)


def client_certificates(values: Mapping[str, Any]) -> str:
    """Return what is asked of clients, of the two keys that say so."""
    if values.get("ssl_options.verify") != "verify_peer":
        return "none"
    return "required" if values.get("ssl_options.fail_if_no_peer_cert") else "optional"


def min_version(values: Mapping[str, Any]) -> str:
    """Return the lowest version. Raises Refused if there is none."""
    versions = [version for one in values.values() for version in one]
    if not versions:
        raise Refused("tlsv1.2 or tlsv1.3")
    return str(min(versions))


def http_listeners(values: Mapping[str, Any], *, default_port: int) -> list[str]:
    """Return the addresses of a listener, of the keys of its IP address and its port."""
    hosts = [values[key] for key in values if key.endswith(".ip")]
    ports = [values[key] for key in values if key.endswith(".port")]
    return [f"{host}:{ports[-1] if ports else default_port}" for host in (hosts[-1:] or every_address())]


# Settings that are made of the values of several keys; the function gets them by key.
COMBINED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "tls.client_certificates": client_certificates, "tls.min_version": min_version,
    "management.listeners": partial(http_listeners, default_port=15_672),
    "management.tls_listeners": partial(http_listeners, default_port=15_671),
    "management.metrics_listeners": partial(http_listeners, default_port=15_692),
    "management.metrics_tls_listeners": partial(http_listeners, default_port=15_691)}

# The keys of `default_policies.operator.$name`: those that become keys of a policy, and all others that are known.
POLICY_KEYS: Mapping[str, str] = {
    "expires": "expires", "message_ttl": "message-ttl", "max_length": "max-length",
    "max_length_bytes": "max-length-bytes", "delivery_limit": "delivery-limit"}
# The keys of `default_limits.vhosts.$name`.
VHOST_LIMITS = ("max_connections", "max_queues")
POLICY_TARGETS = words("queues", "classic_queues", "quorum_queues", "all", "exchanges")


def row_of(key: Parts) -> Key | None:
    """Return the row of a key, or None for a key that RabbitMQ does not have either."""
    return next((row for row in KEYS if row.matches(key)), None)
