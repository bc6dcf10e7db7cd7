"""RabbitMQ's configuration: what its files and variables mean here, what is warned of, and the same as TOML."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from amqpd.config import Config, ConfigError, Examination, examine, load
from amqpd.config.conversion import convert
from amqpd.config.rabbitmq_keys import KEYS, Key, every_address, row_of
from amqpd.config.rabbitmq_variables import UNUSED

DOCUMENT = (Path(__file__).parent.parent / "docs" / "rabbitmq-conf.md").read_text()

Reader = Callable[..., Examination]

# Each key that has an effect, with a value, the setting, and the value that it gets.
EFFECTS: list[tuple[str, str, str, Any]] = [
    ("listeners.tcp.default", "5673", "listeners", tuple(f"{host}:5673" for host in every_address())),
    ("listeners.tcp.local", "127.0.0.1:5673", "listeners", ("127.0.0.1:5673",)),
    ("listeners.tcp.v6", "::1:5673", "listeners", ("[::1]:5673",)),
    ("listeners.tcp.v6", "[::1]:05673", "listeners", ("[::1]:5673",)),
    ("listeners.ssl.default", "5671", "tls.listeners", tuple(f"{host}:5671" for host in every_address())),
    ("listeners.ssl", "none", "tls.listeners", ()),
    ("ssl_handshake_timeout", "7000", "limits.tls_handshake_timeout_s", 7.0),
    ("proxy_protocol", "true", "proxy_protocol_from", ("0.0.0.0/0", "::/0")),
    ("proxy_protocol", "false", "proxy_protocol_from", ()),
    ("ssl_options.certfile", "/c.pem", "tls.certificate", "/c.pem"),
    ("ssl_options.keyfile", "/k.pem", "tls.key", "/k.pem"),
    ("ssl_options.password", "secret", "tls.key_password", "secret"),
    ("ssl_options.cacertfile", "/a.pem", "tls.ca", "/a.pem"),
    ("ssl_options.verify", "verify_none", "tls.client_certificates", "none"),
    ("ssl_options.verify", "verify_peer", "tls.client_certificates", "optional"),
    ("ssl_options.fail_if_no_peer_cert", "true", "tls.client_certificates", "none"),
    ("ssl_options.versions.1", "tlsv1.2", "tls.min_version", "1.2"),
    ("ssl_options.versions.1", "tlsv1.3", "tls.min_version", "1.3"),
    ("default_user", "till", "default_user", "till"),
    ("default_pass", "secret", "default_password", "secret"),
    ("default_vhost", "shop", "default_vhost", "shop"),
    ("default_user_tags.monitoring", "true", "default_user_tags", ("monitoring",)),
    ("default_user_tags.administrator", "false", "default_user_tags", ()),
    ("default_permissions.configure", "^c", "default_permissions.configure", "^c"),
    ("default_permissions.write", "^w", "default_permissions.write", "^w"),
    ("default_permissions.read", "^r", "default_permissions.read", "^r"),
    ("loopback_users", "none", "loopback_users", ()),
    ("loopback_users.guest", "false", "loopback_users", ()),
    ("loopback_users.till", "true", "loopback_users", ("till",)),
    (r"loopback_users.a\.b", "true", "loopback_users", ("a.b",)),
    ("auth_mechanisms.1", "PLAIN", "auth_mechanisms", ("PLAIN",)),
    ("ssl_cert_login_from", "common_name", "login.certificate_name", "common_name"),
    ("ssl_cert_login_from", "subject_alt_name", "login.certificate_name", "subject_alternative_name"),
    ("ssl_cert_login_san_type", "email", "login.certificate_san_type", "email"),
    ("anonymous_login_user", "till", "login.anonymous_user", "till"),
    ("anonymous_login_user", "none", "login.anonymous_user", ""),
    ("handshake_timeout", "5000", "limits.handshake_timeout_s", 5.0),
    ("handshake_timeout", "infinity", "limits.handshake_timeout_s", 600.0),
    ("heartbeat", "30", "limits.heartbeat_s", 30),
    ("heartbeat", "0", "limits.heartbeat_s", 0),
    ("frame_max", "8192", "limits.frame_max", 8_192),
    ("frame_max", "64KB", "limits.frame_max", 65_536),
    ("frame_max", "1.5mb", "limits.frame_max", 1_572_864),
    ("frame_max", "0", "limits.frame_max", 16_777_216),
    ("channel_max", "100", "limits.channel_max", 100),
    ("channel_max", "0", "limits.channel_max", 65_535),
    ("max_channels_per_connection", "100", "limits.channel_max", 100),
    ("channel_max_per_node", "5000", "limits.max_channels", 5_000),
    ("cluster_queue_limit", "100", "limits.max_queues", 100),
    ("cluster_queue_limit", "infinity", "limits.max_queues", 10_000_000),
    ("consumer_max_per_channel", "50", "limits.consumers_per_channel", 50),
    ("connection_max", "500", "limits.max_connections", 500),
    ("connection_max", "infinity", "limits.max_connections", 1_000_000),
    ("max_connections", "500", "limits.max_connections", 500),
    ("max_message_size", "16777216", "limits.max_message_size", 16_777_216),
    ("consumer_timeout", "900000", "limits.consumer_timeout_s", 900.0),
    ("vm_memory_high_watermark.relative", "0.4", "limits.memory_high_watermark", 0.4),
    ("vm_memory_high_watermark.relative", "1", "limits.memory_high_watermark", 1.0),
    ("vm_memory_high_watermark.absolute", "2GB", "limits.memory_high_watermark_absolute", 2_000_000_000),
    ("vm_memory_high_watermark.absolute", "2GiB", "limits.memory_high_watermark_absolute", 2 * 2**30),
    ("vm_memory_high_watermark.absolute", "100k", "limits.memory_high_watermark_absolute", 102_400),
    ("disk_free_limit.relative", "1.5", "limits.disk_free_limit_relative", 1.5),
    ("disk_free_limit.absolute", "50mb", "limits.disk_free_limit", 50_000_000),
    ("disk_free_limit.absolute", "50000", "limits.disk_free_limit", 50_000),
    ("default_queue_type", "quorum", "default_queue_type", "quorum"),
    ("default_queue_type", "rabbit_quorum_queue", "default_queue_type", "quorum"),
    ("default_queue_type", "classic", "default_queue_type", "classic"),
    ("load_definitions", "/etc/d.json", "load_definitions", "/etc/d.json"),
    ("load_definitions", "none", "load_definitions", ""),
    ("definitions.local.path", "d.json", "load_definitions", "d.json"),
    ("management.load_definitions", "d.json", "load_definitions", "d.json"),
    ("management.tcp.port", "15672", "management.listeners", tuple(f"{host}:15672" for host in every_address())),
    ("management.tcp.ip", "::1", "management.listeners", ("[::1]:15672",)),
    ("management.ssl.port", "15671", "management.tls_listeners", tuple(f"{host}:15671" for host in every_address())),
    ("management.ssl.port", "15671", "management.listeners", ()),
    ("management.ssl.ip", "10.0.0.1", "management.tls_listeners", ("10.0.0.1:15671",)),
    ("management.listener.port", "1", "management.listeners", tuple(f"{host}:1" for host in every_address())),
    ("management.listener.ip", "10.0.0.1", "management.listeners", ("10.0.0.1:15672",)),
    ("management.listener.ssl", "false", "management.listeners", tuple(f"{host}:15672" for host in every_address())),
    ("management.path_prefix", "/broker", "management.path_prefix", "/broker"),
    ("management.disable_stats", "true", "management.disable_stats", True),
    ("management.enable_queue_totals", "true", "management.enable_queue_totals", True),
    ("management_agent.disable_metrics_collector", "true", "management.disable_stats", True),
    ("prometheus.tcp.port", "9419", "management.metrics_listeners", tuple(f"{host}:9419" for host in every_address())),
    ("prometheus.tcp.ip", "127.0.0.1", "management.metrics_listeners", ("127.0.0.1:15692",)),
    ("prometheus.ssl.port", "1", "management.metrics_tls_listeners", tuple(f"{host}:1" for host in every_address())),
    ("prometheus.ssl.port", "1", "management.metrics_listeners", ()),
    ("prometheus.ssl.ip", "127.0.0.1", "management.metrics_tls_listeners", ("127.0.0.1:15691",)),
    ("prometheus.path", "my/metrics/", "management.metrics_path", "/my/metrics"),
    ("prometheus.return_per_object_metrics", "true", "management.metrics_per_object", True),
    *((f"{listener}.{name}", "text", f"tls.{setting}", "text") for listener in ("management.ssl", "prometheus.ssl")
      for name, setting in (("certfile", "certificate"), ("keyfile", "key"), ("password", "key_password"),
                            ("cacertfile", "ca"))),
    ("definitions.skip_if_unchanged", "true", "definitions.skip_if_unchanged", True),
    ("log.console.level", "warning", "log.level", "warning"),
    ("log.console.level", "notice", "log.level", "warning"),
    ("log.console.level", "none", "log.level", "error"),
    ("log.console.formatter", "json", "log.format", "json"),
    ("log.file.level", "debug", "log.level", "debug"),
]

# What else a setting needs.
BESIDE = {
    "tls.listeners": "ssl_options.certfile = c.pem\nssl_options.keyfile = k.pem\n",
    **dict.fromkeys(
        ("management.listeners", "management.tls_listeners", "management.metrics_listeners",
         "management.metrics_tls_listeners"), "ssl_options.certfile = c.pem\nssl_options.keyfile = k.pem\n"),
    "tls.client_certificates": "ssl_options.cacertfile = a.pem\n",
}

# Keys that people have in their files, in any version from 3.10 on.
IN_USE = """
    listeners.tcp listeners.tcp.default listeners.tcp.1 listeners.ssl listeners.ssl.default ssl_options.cacertfile
    ssl_options.certfile ssl_options.keyfile ssl_options.verify ssl_options.fail_if_no_peer_cert
    ssl_options.versions.1 ssl_options.password ssl_options.ciphers.1 ssl_options.depth default_user default_pass
    default_vhost default_user_tags.administrator default_permissions.configure default_permissions.read
    default_permissions.write loopback_users loopback_users.guest heartbeat frame_max initial_frame_max channel_max
    max_channels_per_connection channel_max_per_node consumer_max_per_channel max_connections connection_max
    max_message_size consumer_timeout handshake_timeout vm_memory_high_watermark.relative
    vm_memory_high_watermark.absolute vm_memory_high_watermark_paging_ratio disk_free_limit.relative
    disk_free_limit.absolute load_definitions definitions.skip_if_unchanged definitions.import_backend
    definitions.local.path default_policies.operator.x.vhost_pattern default_policies.operator.x.queue_pattern
    default_policies.operator.x.max_length default_limits.vhosts.x.pattern default_limits.vhosts.x.max_queues
    default_queue_type deprecated_features.permit.transient_nonexcl_queues auth_mechanisms.1 auth_backends.1
    auth_backends.1.authn auth_backends.1.authz ssl_cert_login_from anonymous_login_user anonymous_login_pass
    password_hashing_module cluster_name proxy_protocol log.console log.console.level log.console.formatter log.file
    log.file.level log.file.formatter log.file.rotation.date log.file.rotation.size log.file.rotation.count log.dir
    log.connection.level log.default.level log.exchange log.syslog collect_statistics_interval collect_statistics
    management.tcp.port management.tcp.ip management.ssl.port management.ssl.certfile management.load_definitions
    management.path_prefix management.rates_mode management_agent.disable_metrics_collector prometheus.tcp.port
    prometheus.return_per_object_metrics cluster_formation.peer_discovery_backend
    cluster_formation.classic_config.nodes.1 cluster_formation.k8s.host cluster_formation.node_cleanup.interval
    cluster_partition_handling queue_master_locator queue_leader_locator net_ticktime tcp_listen_options.backlog
    tcp_listen_options.nodelay tcp_listen_options.linger.on num_acceptors.tcp reverse_dns_lookups mqtt.vhost
    stomp.vhost stream.listeners.tcp.default auth_ldap.servers.1 auth_http.user_path auth_oauth2.resource_server_id
    raft.wal_max_size_bytes quorum_queue.compute_checksums classic_queue.default_version background_gc_enabled
    vhost_max cluster_queue_limit cluster_tags.region node_tags.role motd_file product.name
    distribution.listener.port_range.min mirroring_sync_batch_size sysmon_handler.triggers.port
    credential_validator.min_length default_users.x.tags
""".split()


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Examines a text as the file `r.conf` of the current folder."""
    monkeypatch.chdir(tmp_path)

    def read_it(text: str, environ: dict[str, str] | None = None) -> Examination:
        Path("r.conf").write_text(text)
        return examine(None, environ or {}, rabbitmq_conf=["r.conf"])

    return read_it


def value_at(config: Config | None, setting: str) -> Any:
    value: Any = config
    for key in setting.split("."):
        value = getattr(value, key)
    return value.reveal() if setting in ("default_password", "tls.key_password") else value


def problems(read_it: Callable[[], Examination]) -> list[str]:
    try:
        return list(read_it().problems)
    except ConfigError as error:
        return list(error.problems)


def sample(row: Key) -> str:
    """A key that the row is about."""
    return re.sub(r"\$\w+", "x", row.name).replace("*", "y")


# The table

@pytest.mark.parametrize(("key", "text", "setting", "value"), EFFECTS)
def test_a_key_becomes_a_setting(read: Reader, key: str, text: str, setting: str, value: Any) -> None:
    found = read(f"{key} = {text}\n{BESIDE.get(setting, '')}")
    assert found.problems == ()
    assert value_at(found.config, setting) == value


def test_every_key_with_an_effect_is_in_the_table_above() -> None:
    shown = [row_of(tuple(key.split("."))) for key, *_ in EFFECTS]
    others = {"listeners.tcp", "default_policies.operator.$name.*", "default_limits.vhosts.$name.*"}    # tested below
    assert {row.name for row in KEYS if row.setting} == {row.name for row in shown if row} | others


@pytest.mark.parametrize("row", [row for row in KEYS if not row.setting], ids=lambda row: row.name)
def test_a_key_without_an_effect_is_a_warning_that_says_why(read: Reader, row: Key) -> None:
    found = read(f"# first\n{sample(row)} = 5\n")
    assert (found.problems, found.config) == ((), Config())
    assert found.warnings == (f"r.conf line 2: {sample(row)} has no effect: {row.remark}",)


@pytest.mark.parametrize(("row", "text"), [
    pytest.param(row, text, id=f"{row.name}={text}") for row in KEYS for text in row.harmless])
def test_what_amqpd_does_anyway_needs_no_warning(read: Reader, row: Key, text: str) -> None:
    assert read(f"{sample(row)} = {text}\n").warnings == ()


@pytest.mark.parametrize("key", IN_USE)
def test_a_key_in_use_has_a_verdict(key: str) -> None:
    assert row_of(tuple(key.split("."))) is not None


def test_all_keys_at_once_stop_no_start(read: Reader) -> None:
    lines = [f"{key} = {text}" for key, text, *_ in EFFECTS]
    lines += [f"{sample(row)} = 5" for row in KEYS if not row.setting]
    assert read("\n".join(lines)).problems == ()


def test_a_file_of_an_operator_in_kubernetes_serves_both_brokers(read: Reader) -> None:
    found = read("""\
## the defaults of the container image
loopback_users.guest = false
log.console = true

queue_master_locator                       = min-masters
disk_free_limit.absolute                   = 2GB
cluster_partition_handling                 = pause_minority
cluster_formation.peer_discovery_backend   = rabbit_peer_discovery_k8s
cluster_formation.k8s.host                 = kubernetes.default
cluster_formation.target_cluster_size_hint = 1
cluster_name                               = shop
total_memory_available_override_value      = 1717986919
default_user                               = default_user_x1
default_pass                               = secret # of the cluster
listeners.tcp.default                      = 5672
auth_mechanisms.1                          = PLAIN
vm_memory_high_watermark.relative          = 0.8
consumer_timeout                           = 3600000
management.tcp.port                        = 15672
prometheus.tcp.port                        = 15692
""")
    assert found.problems == ()
    assert [re.split(r": | has ", warning)[1] for warning in found.warnings] == [
        "queue_master_locator", "cluster_partition_handling", "cluster_formation.peer_discovery_backend",
        "cluster_formation.k8s.host", "cluster_formation.target_cluster_size_hint", "cluster_name",
        "total_memory_available_override_value"]
    assert found.config is not None
    limits = found.config.limits
    assert (limits.disk_free_limit, limits.memory_high_watermark, limits.consumer_timeout_s) == (2 * 10**9, 0.8, 3_600)


def test_address_and_port_of_a_listener_are_two_keys_and_today_s_count(read: Reader) -> None:
    found = read("""\
management.tcp.port = 1
management.listener.port = 2
management.tcp.ip = 127.0.0.2
prometheus.tcp.ip = ::1
prometheus.tcp.port = 3
management_agent.disable_metrics_collector = true
management.disable_stats = false
management.ssl.port = 4
management.ssl.certfile = api.pem
management.ssl.keyfile = api.key
ssl_options.certfile = all.pem
""")
    assert found.config is not None
    management = found.config.management
    assert (management.listeners, management.metrics_listeners) == (("127.0.0.2:1",), ("[::1]:3",))
    assert not management.disable_stats
    assert (found.config.tls.certificate, found.config.tls.key) == ("all.pem", "api.key")
    assert found.warnings == (
        "r.conf line 2: management.listener.port has no effect, since management.tcp.ip is set too",
        "r.conf line 6: management_agent.disable_metrics_collector has no effect, since management.disable_stats is "
        "set too",
        "r.conf line 9: management.ssl.certfile has no effect, since ssl_options.certfile is set too")


def test_an_unknown_key_is_a_warning_with_the_nearest(read: Reader) -> None:
    found = read("hartbeat = 5\nxyzzy.a.b = 6\n")
    assert (found.problems, found.config) == ((), Config())
    assert found.warnings == (
        "r.conf line 1: hartbeat is unknown; did you mean heartbeat?", "r.conf line 2: xyzzy.a.b is unknown")


def documented(row: Key) -> str:
    """The line of the page for users that shows a row."""
    effect = f"`{row.setting}`" if row.setting else "no effect"
    remarks = [row.remark] if row.remark else []
    remarks += [f"no warning of `{'`, `'.join(row.harmless)}`"] if row.harmless else []
    return f"| `{row.name}` | {effect} | {'; '.join(remarks)} |"


def test_the_page_shows_the_table() -> None:
    lines = [line for line in DOCUMENT.splitlines() if line.startswith("| `") and line.count("|") == 4]
    assert [line for line in lines if not line.startswith("| `RABBITMQ_")] == [documented(row) for row in KEYS]


def test_the_page_names_every_variable_that_has_no_effect() -> None:
    options = re.compile(r"_(CACERTFILE|CERTFILE|DEPTH|FAIL_IF_NO_PEER_CERT|KEYFILE|VERIFY)$")
    short = [options.sub("_…", name) for name in UNUSED]
    assert [name for name in short if f"`{name}`" not in DOCUMENT] == []


# Values

@pytest.mark.parametrize(("line", "allowed"), [
    ("heartbeat = 10s", "a whole number from 0 on"),
    ("heartbeat = -5", "a whole number from 0 on"),
    ("heartbeat = 0x5", "a whole number from 0 on"),
    ("heartbeat = 5.0", "a whole number from 0 on"),
    ("heartbeat = '5 '", "a whole number from 0 on"),
    ("channel_max = infinity", "a whole number from 0 on"),
    ("connection_max = 0", "a whole number from 1 on, or infinity"),
    ("handshake_timeout = 10s", "a whole number from 0 on, or infinity"),
    ("consumer_timeout = 0", "a whole number from 1 on"),
    ("max_message_size = 1GB", "a whole number from 1 to 536870912"),
    ("max_message_size = 536870913", "a whole number from 1 to 536870912"),
    ("frame_max = 1KiB", "a whole number of bytes, which may have the unit KB, MB or GB"),
    ("disk_free_limit.absolute = 1.5GB", "a whole number of bytes, which may have a unit such as MB, MiB, GB or GiB"),
    ("disk_free_limit.absolute = 1 GB", "a whole number of bytes, which may have a unit such as MB, MiB, GB or GiB"),
    ("vm_memory_high_watermark.relative = 50%", "a number, such as 0.6"),
    ("vm_memory_high_watermark.relative = nan", "a number, such as 0.6"),
    ("default_user_tags.x = yes", "true or false"),
    ("loopback_users = guest", "none"),
    ("listeners.tcp = 5672", "none"),
    ("listeners.tcp.1 = localhost:5672", "a port, or an IP address and a port, such as 127.0.0.1:5672"),
    ("listeners.tcp.1 = 65536", "a port, or an IP address and a port, such as 127.0.0.1:5672"),
    ("listeners.tcp.1 = 127.0.0.1", "a port, or an IP address and a port, such as 127.0.0.1:5672"),
    ("ssl_cert_login_san_type = other_name", "dns, email, uri or ip"),
    ("management.tcp.port = 65536", "a whole number from 0 to 65535"),
    ("prometheus.tcp.ip = localhost", "an IP address, such as 127.0.0.1"),
    ("prometheus.path = /a b", "a path, such as /metrics"),
    ("management.listener.ssl = true",
     "false; for a listener with TLS, write management.ssl.port and management.ssl.ip"),
    ("log.console.formatter = xml", "plaintext or json"),
    ("log.console.level = loud",
     "debug, info, notice, warning, error, critical, alert, emergency or none"),
    ("default_policies.operator.x.max_length = many", "a whole number from 0 on"),
    ("default_policies.operator.x.apply_to = all queues", "queues, classic_queues, quorum_queues, all or exchanges"),
    ("default_policies.operator.x.vhost_pattern = (",
     "a regular expression: missing ), unterminated subpattern at position 0"),
])
def test_a_wrong_value_is_told_with_its_place_and_what_is_allowed(read: Reader, line: str, allowed: str) -> None:
    key, _, text = line.partition(" = ")
    assert problems(lambda: read(f"# first\n{line}\n")) == [
        f"r.conf line 2: {key} is {text.strip(chr(39))!r}, allowed is {allowed}"]


def test_a_wrong_text_is_told_with_its_place(read: Reader) -> None:
    assert problems(lambda: read("default_user = " + "u" * 256)) == [
        f"r.conf line 1: default_user is '{'u' * 79}…, allowed is a text of 1 to 255 bytes"]


def test_each_element_of_a_list_has_its_own_place(read: Reader) -> None:
    assert problems(lambda: read("listeners.tcp.a = 127.0.0.1:1\n\nlisteners.tcp.b = 127.0.0.1:1\n")) == [
        "r.conf line 3: listeners.tcp.b is '127.0.0.1:1', which is listed already; delete one of them"]


def test_a_unix_socket_is_warned_of(read: Reader) -> None:
    found = read("listeners.tcp.a = 127.0.0.1:1\nlisteners.tcp.b = unix:/run/r.sock:0\n")
    assert value_at(found.config, "listeners") == ("127.0.0.1:1",)
    assert found.warnings == ("r.conf line 2: listeners.tcp.b is 'unix:/run/r.sock:0', which amqpd does not have",)


def test_a_unix_socket_alone_stops_the_start(read: Reader) -> None:
    told, = problems(lambda: read("listeners.tcp.b = local:/run/r.sock:0\n"))
    assert told.startswith("r.conf line 1: listeners.tcp.b is an empty list, ")


CLIENT_CERTIFICATES = "ssl_options.cacertfile = a.pem\nssl_options.verify = verify_peer\n"


@pytest.mark.parametrize(("demanded", "setting"), [("true", "required"), ("false", "optional")])
def test_two_keys_say_what_certificate_a_client_needs(read: Reader, demanded: str, setting: str) -> None:
    found = read(f"ssl_options.fail_if_no_peer_cert = {demanded}\n{CLIENT_CERTIFICATES}")
    assert (found.problems, found.warnings) == ((), ())
    assert value_at(found.config, "tls.client_certificates") == setting


def test_the_lowest_version_of_tls_that_is_listed_counts(read: Reader) -> None:
    found = read("ssl_options.versions.1 = tlsv1.3\nssl_options.versions.2 = tlsv1.2\nssl_options.versions.3 = tlsv1\n")
    assert value_at(found.config, "tls.min_version") == "1.2"
    assert found.warnings == ("r.conf line 3: ssl_options.versions.3 is 'tlsv1', which amqpd does not have",)
    assert problems(lambda: read("ssl_options.versions.1 = tlsv1.1\n")) == [
        "r.conf line 1: ssl_options.versions.1 is 'tlsv1.1', allowed is tlsv1.2 or tlsv1.3"]


def test_listeners_with_tls_alone(read: Reader) -> None:
    found = read("listeners.tcp = none\nlisteners.ssl.a = 127.0.0.1:1\nssl_options.certfile = c.pem\n"
                 "ssl_options.keyfile = k.pem\n")
    assert (found.problems, value_at(found.config, "listeners")) == ((), ())
    assert value_at(found.config, "tls.listeners") == ("127.0.0.1:1",)


def test_proxies_everywhere_are_warned_of(read: Reader) -> None:
    assert read("proxy_protocol = false\n").warnings == ()
    told, = read("proxy_protocol = true\n").warnings
    assert told.startswith("r.conf line 1: proxy_protocol lets every client say from which address it comes; ")


def test_mechanisms_are_in_the_order_of_their_numbers(read: Reader) -> None:
    found = read("auth_mechanisms.10 = EXTERNAL\nauth_mechanisms.2 = PLAIN\nauth_mechanisms.3 = RABBIT-CR-DEMO\n"
                 "auth_mechanisms.1 = AMQPLAIN\nauth_mechanisms.x = PLAIN\n")
    assert value_at(found.config, "auth_mechanisms") == ("AMQPLAIN", "PLAIN", "EXTERNAL")
    absent, external = found.warnings
    assert absent == "r.conf line 3: auth_mechanisms.3 is 'RABBIT-CR-DEMO', which amqpd does not have"
    assert external.startswith("r.conf line 4: auth_mechanisms.1 lists EXTERNAL, with which nobody can log in: ")


def test_mechanisms_that_are_all_unknown_stop_the_start(read: Reader) -> None:
    told, = problems(lambda: read("auth_mechanisms.1 = RABBIT-CR-DEMO\n"))
    assert told.startswith("r.conf line 1: auth_mechanisms.1 is an empty list, allowed is a list, each entry 'PLAIN'")


def test_an_encrypted_value_is_refused_and_not_shown(read: Reader) -> None:
    told, = problems(lambda: read("default_pass = encrypted:c2VjcmV0\n"))
    assert told.startswith("r.conf line 1: default_pass is encrypted, which amqpd cannot read; write ")
    assert "c2VjcmV0" not in told


@pytest.mark.parametrize(("line", "setting", "value"), [
    ("heartbeat = 70000", "limits.heartbeat_s", 65_535),
    ("frame_max = 32MB", "limits.frame_max", 16_777_216),
    ("handshake_timeout = 50", "limits.handshake_timeout_s", 0.1),
    ("vm_memory_high_watermark.relative = 1.5", "limits.memory_high_watermark", 1.0),
    ("vm_memory_high_watermark.absolute = 0", "limits.memory_high_watermark_absolute", 1),
])
def test_what_rabbitmq_allows_and_amqpd_does_not_becomes_the_nearest_value(
    read: Reader, line: str, setting: str, value: Any
) -> None:
    found = read(line)
    assert (found.problems, value_at(found.config, setting)) == ((), value)
    key, _, text = line.partition(" = ")
    assert found.warnings == (
        f"r.conf line 1: {key} is {text}: {setting} is set to {value}, the nearest value that amqpd allows",)


@pytest.mark.parametrize(("lines", "setting", "value", "unused"), [
    ("channel_max = 5\nmax_channels_per_connection = 6\n", "limits.channel_max", 6, "channel_max"),
    ("max_channels_per_connection = 6\nchannel_max = 5\n", "limits.channel_max", 5, "max_channels_per_connection"),
    ("channel_max = 5\nmax_channels_per_connection = 6\nchannel_max = 7\n", "limits.channel_max", 7,
     "max_channels_per_connection"),
    ("log.console.level = error\nlog.file.level = debug\n", "log.level", "error", "log.file.level"),
    ("loopback_users = none\nloopback_users.guest = true\n", "loopback_users", (), "loopback_users.guest"),
    ("vm_memory_high_watermark.relative = 0.5\nvm_memory_high_watermark.absolute = 1GB\n",
     "limits.memory_high_watermark_absolute", 0, "vm_memory_high_watermark.absolute"),
    ("load_definitions = a.json\ndefinitions.local.path = b.json\n", "load_definitions", "a.json",
     "definitions.local.path"),
    ("management.load_definitions = a.json\ndefinitions.local.path = b.json\n", "load_definitions", "b.json",
     "management.load_definitions"),
    ("disk_free_limit.absolute = 1GB\ndisk_free_limit.relative = 2.0\n", "limits.disk_free_limit", 134_217_728,
     "disk_free_limit.absolute"),
])
def test_of_two_keys_for_one_setting_the_other_one_is_warned_of(
    read: Reader, lines: str, setting: str, value: Any, unused: str
) -> None:
    found = read(lines)
    assert value_at(found.config, setting) == value
    told, = found.warnings
    assert f": {unused} has no effect, since " in told and told.endswith(" is set too")


def test_no_listener_without_tls_is_told_with_its_place(read: Reader) -> None:
    told, = problems(lambda: read("listeners.tcp.default = 5672\nlisteners.tcp = none\n"))
    assert told.startswith("r.conf line 2: listeners.tcp is an empty list, allowed is a list, each entry HOST:PORT")


def test_a_user_without_a_password_is_warned_of(read: Reader) -> None:
    assert read("default_user = till\n").warnings == (
        "r.conf line 1: default_user is set without default_pass: the password is guest's, as in RabbitMQ",)
    assert read("default_user = till\n", {"RABBITMQ_DEFAULT_PASS": "secret"}).warnings == ()


def test_no_password_is_shown(read: Reader) -> None:
    found = read("default_pass = sesame\nssl_options.password = sesame\nheartbeat = x\n")
    assert "sesame" not in repr(found)
    assert problems(lambda: read("default_pass = ''\n")) == [
        "r.conf line 1: default_pass is ***, allowed is a text that is not empty"]


# Operator policies

POLICY = """\
default_policies.operator.few.vhost_pattern = ^shop
default_policies.operator.few.queue_pattern = ^orders
default_policies.operator.few.max_length = 100
default_policies.operator.few.message_ttl = 5000
default_policies.operator.few.max_in_memory_length = 5
default_policies.operator.few.apply_to = classic_queues
"""


@pytest.mark.parametrize("environ", [{"RABBITMQ_DEFAULT_VHOST": "shop-1"}, {}])
def test_a_default_operator_policy_is_one_of_the_default_vhost(read: Reader, environ: dict[str, str]) -> None:
    found = read(POLICY + ("" if environ else "default_vhost = shop-1\n"), environ)
    assert found.config is not None
    policy, = found.config.operator_policies
    assert (policy.name, policy.vhost, policy.pattern) == ("few", "shop-1", "^orders")
    assert policy.apply_to == "classic_queues"
    assert policy.definition == {"max-length": 100, "message-ttl": 5_000}
    assert policy.where == "r.conf line 1: default_policies.operator.few.vhost_pattern"
    everywhere, in_memory = found.warnings
    assert "has an effect in the vhost 'shop-1' only" in everywhere
    assert in_memory.startswith("r.conf line 5: default_policies.operator.few.max_in_memory_length has no effect: ")


@pytest.mark.parametrize(("text", "reason"), [
    (POLICY, "is not for the vhost '/'"), ("default_policies.operator.few.queue_pattern = x\n", "limits nothing")])
def test_an_operator_policy_that_is_for_nothing_is_warned_of(read: Reader, text: str, reason: str) -> None:
    found = read(text)
    assert found.config is not None and found.config.operator_policies == ()
    assert found.warnings[0].endswith(f" has no effect: the policy 'few' {reason}")


def test_operator_policies_are_added_to_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text('[[operator_policies]]\nname = "own"\npattern = ""\ndefinition = {expires = 5}\n')
    Path("r.conf").write_text(POLICY + "default_vhost = shop\n")
    config = load("a.toml", {}, rabbitmq_conf=["r.conf"])
    assert [policy.name for policy in config.operator_policies] == ["own", "few"]


# Limits of new vhosts

VHOST_LIMITS = """\
default_limits.vhosts.2.pattern = ^device
default_limits.vhosts.2.max_connections = 10
default_limits.vhosts.1.max_queues = 20
default_limits.vhosts.2.max_queues = -1
"""


def test_default_limits_of_vhosts_keep_the_order_in_which_they_begin(read: Reader) -> None:
    found = read(VHOST_LIMITS + "default_limits.vhosts.1.max_exchanges = 5\n")
    assert found.config is not None and found.problems == ()
    device, others = found.config.default_vhost_limits
    assert (device.pattern, device.max_connections, device.max_queues) == ("^device", 10, -1)
    assert (others.pattern, others.max_connections, others.max_queues) == (".*", -1, 20)
    assert others.where == "r.conf line 3: default_limits.vhosts.1.max_queues"
    assert found.warnings == ("r.conf line 5: default_limits.vhosts.1.max_exchanges has no effect: the limits of a "
                              "vhost are max_connections and max_queues",)


def test_wrong_default_limits_of_vhosts_are_problems(read: Reader) -> None:
    assert problems(lambda: read("default_limits.vhosts.a.max_queues = many\n")) == [
        "r.conf line 1: default_limits.vhosts.a.max_queues is 'many', allowed is a whole number from -1 on"]
    fault, = problems(lambda: read("default_limits.vhosts.a.pattern = (\n"))
    assert fault.startswith("r.conf line 1: default_limits.vhosts.a.pattern.pattern is '(', allowed is a regular ")


def test_streams_as_the_default_type_are_warned_of(read: Reader) -> None:
    found = read("default_queue_type = stream\n")
    assert found.config == Config()
    assert found.warnings == ("r.conf line 1: default_queue_type is 'stream', which amqpd does not have",)


# The format

@pytest.mark.parametrize(("line", "value"), [
    ("default_user=a", "a"),
    ("\t default_user \t=  a b \t", "a b"),
    ("default_user = a # a comment", "a"),
    ("default_user = a#b", "a"),
    ("default_user = 'a#b' # a comment", "a#b"),
    ("default_user = ' a '", " a "),
    ("default_user = 'a", "'a"),
    ("default_user = it's", "it's"),
    ('default_user = "a"', '"a"'),
    ("default_user = a = b", "a = b"),
    ("default_user = é", "é"),
    ("default_user = a\r", "a"),
    ("default_user = a\ndefault_user = b", "b"),
    ("cluster_name = c\ndefault_user = $(cluster_name)-$(HOME)", "c-/home"),
    ("default_user = ${HOME} $(", "${HOME} $("),
])
def test_a_line_is_read_as_rabbitmq_reads_it(read: Reader, line: str, value: str) -> None:
    found = read(f"# comment\n\n  \t\n  # comment\n{line}\n", {"HOME": "/home"})
    assert found.problems == ()
    assert value_at(found.config, "default_user") == value


@pytest.mark.parametrize("line", [
    "heartbeat", "heartbeat 5", "= 5", "heartbeat =", "heartbeat = # 5", "heart beat = 5", "a..b = 5", ".a = 5",
    "[section]", "include a b", "a@b = 5",
])
def test_a_line_that_is_no_setting_is_told(read: Reader, line: str) -> None:
    told = "is not a setting; allowed is 'key = value' or a comment after '#'"
    hint = "; for amqpd's TOML file use --config"
    assert problems(lambda: read(f"heartbeat = 5\n{line}\n[x]\n")) == [
        f"r.conf line 2: {told}{hint * line.startswith('[')}", f"r.conf line 3: {told}{hint}"]


def test_a_toml_file_in_place_of_a_rabbitmq_conf_is_told_which_option_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "amqpd.toml"
    path.write_text('listeners = [\n]\n')
    assert problems(lambda: load(None, {}, rabbitmq_conf=[str(path)])) == [
        f"{path} line 2: is not a setting; allowed is 'key = value' or a comment after '#'; for amqpd's TOML file use "
        "--config"]
    path.write_text("heartbeat = 5\n")
    assert f"{path} is read as a rabbitmq.conf; for amqpd's TOML file use --config" in examine(
        None, {}, rabbitmq_conf=[str(path)]).warnings


def test_what_stands_for_nothing_is_told(read: Reader) -> None:
    assert problems(lambda: read("heartbeat = $(NOWHERE)\n")) == [
        "r.conf line 1: heartbeat uses $(NOWHERE), which is neither a key nor an environment variable; set it"]


def test_a_file_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "r.conf").write_bytes(b"heartbeat = 5\ndefault_user = \xff\n")
    assert problems(lambda: examine(None, {}, rabbitmq_conf=[str(tmp_path)])) == [
        f"{tmp_path}/r.conf line 2: is not UTF-8"]


def test_another_file_can_be_included(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text("heartbeat = 6\nframe_max = 8192\n")
    (tmp_path / "more" / "b.conf").write_text("include ../c.conf\n")
    (tmp_path / "c.conf").write_text("channel_max = 9\n")
    found = read("heartbeat = 5\ninclude more/*.conf # both\nframe_max = 4096\n")
    assert found.config is not None
    limits = found.config.limits
    assert (limits.heartbeat_s, limits.frame_max, limits.channel_max) == (6, 4_096, 9)


@pytest.mark.parametrize("pattern", ["r.conf", "*.conf", "./r.conf"])
def test_a_file_that_includes_itself_is_told(read: Reader, pattern: str) -> None:
    told, = problems(lambda: read(f"include {pattern}\n"))
    assert re.fullmatch(r"\S*r.conf line 1: \S*r.conf includes itself; delete this line", told)


def test_an_included_file_that_is_missing_is_told(read: Reader) -> None:
    assert problems(lambda: read("include nowhere.conf\n")) == [
        "nowhere.conf: cannot be read: No such file or directory"]


# Which files

@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A main file, and a directory with two more and one of another kind."""
    monkeypatch.chdir(tmp_path)
    Path("rabbitmq.conf").write_text("heartbeat = 1\nframe_max = 4097\nchannel_max = 1\n")
    Path("conf.d").mkdir()
    Path("conf.d/20-b.conf").write_text("heartbeat = 3\n")
    Path("conf.d/10-a.conf").write_text("heartbeat = 2\nframe_max = 4098\n")
    Path("conf.d/30.txt").write_text("heartbeat = 4\n")
    return tmp_path


@pytest.mark.parametrize(("given", "environ", "expected"), [
    (["rabbitmq.conf"], {}, (1, 4_097, 1)),
    (["conf.d"], {}, (3, 4_098, 2_047)),
    (["rabbitmq.conf", "conf.d"], {}, (3, 4_098, 1)),
    (["conf.d", "rabbitmq.conf"], {}, (1, 4_097, 1)),
    ([], {"RABBITMQ_CONFIG_FILE": "rabbitmq.conf"}, (1, 4_097, 1)),
    ([], {"RABBITMQ_CONFIG_FILE": "rabbitmq"}, (1, 4_097, 1)),
    ([], {"RABBITMQ_CONFIG_FILE": "rabbitmq.conf", "RABBITMQ_CONFIG_FILES": "conf.d"}, (3, 4_098, 1)),
    ([], {"RABBITMQ_CONFIG_FILES": "conf.d/1*"}, (2, 4_098, 2_047)),
    ([], {"RABBITMQ_CONFIG_FILES": "conf.d/9*"}, (60, 131_072, 2_047)),
    (["rabbitmq.conf"], {"RABBITMQ_CONFIG_FILES": "conf.d", "RABBITMQ_CONFIG_FILE": "nowhere"}, (1, 4_097, 1)),
    ([], {"RABBITMQ_CONFIG_FILE": ""}, (60, 131_072, 2_047)),
])
def test_files_are_merged_in_order(
    folder: Path, given: list[str], environ: dict[str, str], expected: tuple[int, int, int]
) -> None:
    limits = load(None, environ, rabbitmq_conf=given).limits
    assert (limits.heartbeat_s, limits.frame_max, limits.channel_max) == expected


@pytest.mark.parametrize(("given", "environ", "told"), [
    (["nowhere"], {}, "nowhere: there is no such file or directory; create it, or name another one"),
    ([], {"RABBITMQ_CONFIG_FILE": "nowhere"},
     "RABBITMQ_CONFIG_FILE: nowhere: there is no such file or directory; create it, or name another one"),
    ([], {"RABBITMQ_CONFIG_FILES": "nowhere"},
     "RABBITMQ_CONFIG_FILES: nowhere: there is no such file or directory; create it, or name another one"),
])
def test_a_file_that_is_missing_is_told(
    folder: Path, given: list[str], environ: dict[str, str], told: str
) -> None:
    assert problems(lambda: examine(None, environ, rabbitmq_conf=given)) == [told]


@pytest.mark.parametrize(("given", "environ", "path"), [
    (["rabbitmq.conf"], {}, "advanced.config"),
    ([], {"RABBITMQ_ADVANCED_CONFIG_FILE": "advanced"}, "advanced.config"),
    ([], {"RABBITMQ_ADVANCED_CONFIG_FILE": "advanced.config"}, "advanced.config"),
    ([], {"RABBITMQ_CONFIG_FILE": "advanced.config"}, "advanced.config"),
    (["advanced.config"], {}, "advanced.config"),
])
def test_erlang_terms_are_not_read_but_warned_of_once(
    folder: Path, given: list[str], environ: dict[str, str], path: str
) -> None:
    Path("advanced.config").write_text("[{rabbit, [{heartbeat, 7}]}].")
    found = examine(None, environ, rabbitmq_conf=given)
    assert found.warnings == (
        f"{path} is not read, since it has Erlang terms; settings of amqpd belong into its TOML file",)


def test_every_other_source_overrides_the_file(folder: Path) -> None:
    Path("r.conf").write_text(
        "default_user = conf\ndefault_vhost = conf\nheartbeat = 1\nframe_max = 4097\nchannel_max = 1\n"
        "default_pass = conf\n")
    Path("a.toml").write_text('default_vhost = "toml"\n[limits]\nheartbeat_s = 2\n')
    environ = {"RABBITMQ_DEFAULT_USER": "variable", "AMQPD_LIMITS_FRAME_MAX": "4098"}
    config = load("a.toml", environ, {"limits.channel_max": 3}, ["r.conf"])
    limits = config.limits
    assert (config.default_user, config.default_vhost, config.default_password.reveal()) == ("variable", "toml", "conf")
    assert (limits.heartbeat_s, limits.frame_max, limits.channel_max) == (2, 4_098, 3)


@pytest.mark.parametrize(("line", "variable", "setting"), [
    ("disk_free_limit.relative = 2.0", "AMQPD_LIMITS_DISK_FREE_LIMIT", "limits.disk_free_limit_relative"),
    ("disk_free_limit.absolute = 7", "AMQPD_LIMITS_DISK_FREE_LIMIT_RELATIVE", "limits.disk_free_limit"),
    ("vm_memory_high_watermark.absolute = 7", "AMQPD_LIMITS_MEMORY_HIGH_WATERMARK",
     "limits.memory_high_watermark_absolute"),
    ("vm_memory_high_watermark.relative = 0.1", "AMQPD_LIMITS_MEMORY_HIGH_WATERMARK_ABSOLUTE",
     "limits.memory_high_watermark"),
])
def test_another_source_overrides_a_limit_of_the_file_in_either_form(
    read: Reader, line: str, variable: str, setting: str
) -> None:
    assert value_at(read(line, {variable: "1"}).config, setting) == value_at(Config(), setting)


# RabbitMQ's variables

@pytest.mark.parametrize(("environ", "setting", "value"), [
    ({"RABBITMQ_NODE_PORT": "5673"}, "listeners", tuple(f"{host}:5673" for host in every_address())),
    ({"RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1"}, "listeners", ("127.0.0.1:5672",)),
    ({"RABBITMQ_NODE_IP_ADDRESS": "::1", "RABBITMQ_NODE_PORT": "5673"}, "listeners", ("[::1]:5673",)),
    ({"RABBITMQ_NODE_IP_ADDRESS": "auto"}, "listeners", tuple(f"{host}:5672" for host in every_address())),
    ({"RABBITMQ_NODE_PORT": "5673", "AMQPD_LISTENERS": ":1"}, "listeners", (":1",)),
    ({"RABBITMQ_LOG": "debug"}, "log.level", "debug"),
    ({"RABBITMQ_LOG": "connection=debug,critical,+color"}, "log.level", "error"),
    ({"RABBITMQ_LOG": "debug", "AMQPD_LOG_LEVEL": "info"}, "log.level", "info"),
    ({"RABBITMQ_LOGS": "-"}, "log.level", "info"),
    ({"RABBITMQ_MNESIA_BASE": "data", "AMQPD_DATA_DIR": "mine"}, "data_dir", Path("mine")),
])
def test_a_variable_of_a_node_counts(environ: dict[str, str], setting: str, value: Any) -> None:
    found = examine(None, environ)
    assert (found.problems, found.warnings) == ((), ())
    assert value_at(found.config, setting) == value


def test_the_data_directory_of_rabbitmqs_variable_is_used_with_a_warning() -> None:
    found = examine(None, {"RABBITMQ_MNESIA_BASE": "data"})
    assert value_at(found.config, "data_dir") == Path("data")
    assert found.warnings == (
        "RABBITMQ_MNESIA_BASE is used as the data directory; set AMQPD_DATA_DIR, which amqpctl reads too",)


@pytest.mark.parametrize("port", ["x", "0", "65536", "tcp://10.0.0.1:5672", "٥"])
def test_a_wrong_port_in_a_variable_is_told(port: str) -> None:
    assert problems(lambda: examine(None, {"RABBITMQ_NODE_PORT": port})) == [
        f"RABBITMQ_NODE_PORT is {port!r}, allowed is a whole number from 1 to 65535"]


def test_a_wrong_address_in_a_variable_is_told() -> None:
    told, = problems(lambda: examine(None, {"RABBITMQ_NODE_IP_ADDRESS": "a b"}))
    assert told.startswith("RABBITMQ_NODE_IP_ADDRESS is 'a b:5672', allowed is HOST:PORT")


@pytest.mark.parametrize("variable", [*UNUSED, "RABBITMQ_LOGS", "RABBITMQ_LOG"])
def test_a_variable_without_an_effect_is_a_warning(variable: str) -> None:
    found = examine(None, {variable: "x"})
    assert (found.problems, found.config) == ((), Config())
    told, = found.warnings
    assert told.startswith(f"{variable} has no effect: ")


def test_a_removed_variable_is_refused_as_rabbitmqs_image_does() -> None:
    assert problems(lambda: examine(None, {"RABBITMQ_VM_MEMORY_HIGH_WATERMARK": "0.4"})) == [
        "RABBITMQ_VM_MEMORY_HIGH_WATERMARK is set but not read: put the value itself in "
        "AMQPD_LIMITS_MEMORY_HIGH_WATERMARK"]


@pytest.mark.parametrize("variable", ["RABBITMQ_HOST", "RABBITMQ_SERVICE_PORT", "RABBITMQ_URL"])
def test_variables_of_others_are_let_alone(variable: str) -> None:
    assert examine(None, {variable: "x"}) == examine(None, {})


# As TOML

def read_back(text: str, folder: Path) -> Config:
    (folder / "converted.toml").write_text(text)
    return load(str(folder / "converted.toml"), {})


def without_places(config: Config) -> Config:
    return replace(config, operator_policies=tuple(replace(one, where="") for one in config.operator_policies))


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="'\n\r"), min_size=1, max_size=20).map(
    lambda text: f"'{text.replace('$(', '')}'")
FREE_TEXTS = ["default_user", "default_pass", "default_vhost", "default_policies.operator.a.queue_pattern"]
SETTINGS = [(key, st.just(text)) for key, text, *_ in EFFECTS] + [(key, TEXTS) for key in FREE_TEXTS] + [
    ("default_policies.operator.a.max_length", st.just("5")), ("cluster_name", TEXTS), ("unknown", TEXTS),
    ("heartbeat", st.integers(0, 10**6).map(str)), ("default_policies.operator.b.expires", st.just("7"))]


@given(lines=st.lists(st.sampled_from(SETTINGS).flatmap(lambda one: one[1].map(lambda text: f"{one[0]} = {text}"))))
def test_the_converted_file_has_the_same_effect(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("conversion")
    path = folder / "r.conf"
    path.write_text("\n".join(lines))
    try:
        config = load(None, {}, rabbitmq_conf=[str(path)])
    except ConfigError as error:
        with pytest.raises(ConfigError) as refused:
            convert([str(path)], {})
        assert refused.value.problems == error.problems
    else:
        assert without_places(read_back(convert([str(path)], {}), folder)) == without_places(config)


@pytest.mark.parametrize(("key", "text", "setting", "value"), EFFECTS)
def test_each_key_is_converted(tmp_path: Path, key: str, text: str, setting: str, value: Any) -> None:
    (tmp_path / "r.conf").write_text(f"{key} = {text}\n{BESIDE.get(setting, '')}")
    assert value_at(read_back(convert([str(tmp_path)], {}), tmp_path), setting) == value


def test_the_converted_file_tells_what_has_no_effect_and_where_the_rest_was(folder: Path) -> None:
    Path("r.conf").write_text(
        "heartbeat = 5\ncluster_name = x\nstomp.default_pass = sesame\nlog.console.level = info\n")
    assert convert(["r.conf"], {}) == """\
# The settings of r.conf for amqpd.
# warning: r.conf line 2: cluster_name has no effect: amqpd has no cluster
# warning: r.conf line 3: stomp.default_pass has no effect: amqpd does not have this plugin

[limits]
# r.conf line 1: heartbeat
heartbeat_s = 5

[log]
# r.conf line 4: log.console.level
level = "info"
"""


def test_any_character_is_converted(folder: Path) -> None:
    text = "".join(map(chr, (*range(1, 10), *range(11, 13), *range(14, 39), *range(40, 160), 0x2028, 0x1F600)))
    Path("r\n.conf").write_text(f"default_user = '{text}'\ndefault_pass = p\nunknown = x\n")
    assert read_back(convert(["r\n.conf"], {}), folder).default_user == text


def test_the_environment_is_not_converted(folder: Path) -> None:
    environ = {"AMQPD_LIMITS_HEARTBEAT_S": "9", "RABBITMQ_CONFIG_FILE": "conf.d", "USER": "till"}
    Path("r.conf").write_text("default_user = $(USER)\ndefault_pass = p\n")
    assert read_back(convert(["r.conf"], environ), folder) == load(None, {"USER": "till"}, rabbitmq_conf=["r.conf"])
