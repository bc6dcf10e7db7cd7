"""The configuration: where each setting is read from, and how an error is reported."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.config import Config, ConfigError, Listener, Secret, examine, load
from amqpd.config.settings import SETTINGS, VARIABLES, AuthMechanism, effective
from amqpd.config.sources import find_lines
from amqpd.session.sasl import MECHANISMS
from amqpd.session.sasl_steps import LoginSettings

REFERENCE = Path(__file__).parent.parent / "config" / "amqpd.toml"

Loader = Callable[..., Config]


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Loads a text as the file `amqpd.toml` of the current folder."""
    monkeypatch.chdir(tmp_path)

    def load_it(text: str, environ: dict[str, str] | None = None, **overrides: Any) -> Config:
        Path("amqpd.toml").write_text(text)
        return load("amqpd.toml", environ or {}, overrides)

    return load_it


def problems(load_it: Callable[[], Config]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_it()
    return list(caught.value.problems)


def value_at(config: Config, setting: str) -> Any:
    value: Any = config
    for key in setting.split("."):
        value = getattr(value, key)
    return value


# The file that documents it all

def test_the_documented_file_says_the_defaults() -> None:
    assert load(str(REFERENCE), {}) == load(None, {})


def test_the_documented_file_sets_every_setting() -> None:
    table = tomllib.loads(REFERENCE.read_text())
    documented = {f"{key}.{inner}" for key, value in table.items() if isinstance(value, dict) for inner in value}
    documented |= {key for key, value in table.items() if not isinstance(value, dict)}
    assert documented == set(SETTINGS)


def test_the_documented_declarations_are_declarations(load_text: Loader) -> None:
    examples = REFERENCE.read_text().partition("# Declarations")[2]
    uncommented = [line.removeprefix("# ") for line in examples.splitlines() if re.match(r"# (\[\[|\w+ = )", line)]
    config = load_text("\n".join(uncommented))
    assert [vhost.name for vhost in config.vhosts] == ["shop"]
    assert config.users[0].permissions[0].write == "^orders$"
    assert config.policies[0].definition == {"max-length": 100_000, "overflow": "reject-publish"}
    assert config.operator_policies[0].apply_to == "queues"
    assert config.exchanges[0].arguments == {"alternate-exchange": "amq.fanout"}
    assert config.queues[0].arguments == {"x-max-length": 100_000}
    assert config.bindings[0].routing_key == "order.*.paid"


# Sources

def test_without_a_file_it_listens_on_loopback_only() -> None:
    assert [(listener.host, listener.port) for listener in load(None, {}).listeners] == [("127.0.0.1", 5672)]


@pytest.mark.parametrize("text, host, port", [
    ("127.0.0.1:0", "127.0.0.1", 0),
    (":5673", "127.0.0.1", 5673),
    ("[::1]:5672", "::1", 5672),
    ("localhost:65535", "localhost", 65535),
])
def test_a_listener_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    listener, = load(None, {}, {"listeners": [text]}).listeners
    assert (listener.host, listener.port) == (host, port)


@pytest.mark.parametrize("text", ["5672", "127.0.0.1", "host:65536", "::1:5672", "amqp://host:5672", "host:", ""])
def test_what_is_no_listener_is_refused_with_an_example(text: str) -> None:
    told, = problems(lambda: load(None, {}, {"listeners": [text]}))
    assert told == (
        f"command line: listeners is {text!r}, allowed is HOST:PORT, such as '127.0.0.1:5672' or '[::1]:0'")


def test_a_broker_that_listens_nowhere_is_refused(load_text: Loader) -> None:
    told, = problems(lambda: load_text("listeners = []"))
    assert told.startswith("amqpd.toml line 1: listeners is an empty list, allowed is a list, each entry HOST:PORT")
    assert load_text('listeners = []\n[tls]\nlisteners = [":0"]\ncertificate = "a"\nkey = "b"').listeners == ()


@pytest.mark.parametrize("variable, setting", VARIABLES.items())
def test_every_setting_has_a_variable(variable: str, setting: str) -> None:
    default = value_at(Config(), setting)
    number = "0.5" if setting == "limits.memory_high_watermark" else "7"
    text = "true" if isinstance(default, bool) else number if isinstance(default, float) else {
        "listeners": "0.0.0.0:1,[::]:2", "loopback_users": "a, b", "durability": "process", "log.level": "error",
        "log.format": "json", "auth_mechanisms": "EXTERNAL,PLAIN", "login.certificate_name": "common_name",
        "login.certificate_san_type": "email",
        "default_queue_type": "quorum",
        "tls.listeners": "0.0.0.0:1", "management.listeners": "0.0.0.0:1", "management.tls_listeners": "0.0.0.0:1",
        "management.path_prefix": "/broker", "management.metrics_listeners": "0.0.0.0:1",
        "management.metrics_tls_listeners": "0.0.0.0:1", "management.metrics_path": "/mine",
        "tls.client_certificates": "required", "store": "postgresql://a@b/c", "cluster.listeners": "127.0.0.1:1",
        "tls.min_version": "1.3", "proxy_protocol_from": "10.0.0.0/8, ::1",
    }.get(setting, "5000")
    config = examine(None, {variable: text}).config     # those of TLS need others
    assert config is not None and value_at(config, setting) != default


@pytest.mark.parametrize("text, problem", [
    ('[tls]\nlisteners = [":0"]\nkey = "a"', "line 2: tls.listeners needs tls.certificate, the path of a PEM file"),
    ('[tls]\nlisteners = [":0"]\ncertificate = "a"', "line 2: tls.listeners needs tls.key, the path of a PEM file"),
    ('[tls]\nclient_certificates = "optional"', "line 2: tls.client_certificates is 'optional' and needs tls.ca"),
    ('[tls]\nlisteners = ["127.0.0.1:5672"]\ncertificate = "a"\nkey = "b"',
     "line 2: tls.listeners[0] is '127.0.0.1:5672', which is listed already"),
    ('[tls]\nkey_password = 5', "line 2: tls.key_password is ***, allowed is a text"),
    ('[tls]\nkey = 5', "line 2: tls.key is 5, allowed is the path of a file"),
    ('[[tls.names]]\nname = "a"\ncertificate = "c"\nkey = "k"\n[[tls.names]]\nname = "a"\ncertificate = "c"\nkey = "k"',
     "line 5: tls.names.a is declared already: amqpd.toml line 1: tls.names.a"),
])
def test_settings_of_tls_that_contradict_each_other_are_told(load_text: Loader, text: str, problem: str) -> None:
    told, = problems(lambda: load_text(text))
    assert told.startswith(f"amqpd.toml {problem}")


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy.example.org", "", "10.0.0.0/8/8"])
def test_what_is_no_network_is_refused(load_text: Loader, text: str) -> None:
    told, = problems(lambda: load_text(f'proxy_protocol_from = ["{text}"]'))
    assert told == (
        f"amqpd.toml line 1: proxy_protocol_from[0] is '{text}', allowed is an IP address or a network, such as "
        "'10.0.0.0/8'")


def test_the_password_of_a_key_is_not_shown() -> None:
    assert "sesame" not in repr(examine(None, {"AMQPD_TLS_KEY_PASSWORD": "sesame"}).config)


def test_the_url_of_a_store_is_not_shown_since_it_may_have_a_password_in_it() -> None:
    told, = problems(lambda: load(None, {"AMQPD_STORE": "mysql://a:sesame@b/c"}))
    assert told == "AMQPD_STORE is ***, allowed is postgresql://USER@HOST/DATABASE, or nothing for a file in data_dir"
    assert "sesame" not in repr(examine(None, {"AMQPD_STORE": "postgresql://a:sesame@b/c"}).config)


def test_a_list_in_a_variable_has_commas() -> None:
    assert load(None, {"AMQPD_LOOPBACK_USERS": "guest, till"}).loopback_users == ("guest", "till")


@pytest.mark.parametrize("tls, is_usable", [
    ("", False),
    ("client_certificates = 'required'\nca = 'a'", False),
    ("listeners = [':1']\ncertificate = 'a'\nkey = 'a'", False),
    ("listeners = [':1']\ncertificate = 'a'\nkey = 'a'\nclient_certificates = 'optional'\nca = 'a'", True),
])
def test_external_without_certificates_of_clients_is_warned_of(tmp_path: Path, tls: str, is_usable: bool) -> None:
    path = tmp_path / "amqpd.toml"
    path.write_text(f"auth_mechanisms = ['EXTERNAL']\n[tls]\n{tls}\n")
    warned = [
        f"{path} line 1: auth_mechanisms lists EXTERNAL, with which nobody can log in: it needs tls.listeners, and "
        "tls.client_certificates = 'optional' or 'required'"]
    found = examine(str(path), {})
    assert not found.problems and [*found.warnings] == ([] if is_usable else warned)


def test_an_empty_list_in_a_variable_is_none() -> None:
    assert load(None, {"AMQPD_LOOPBACK_USERS": "none"}).loopback_users == ()
    assert load(None, {"AMQPD_LOOPBACK_USERS": "none,guest"}).loopback_users == ("none", "guest")
    told, = problems(lambda: load(None, {"AMQPD_AUTH_MECHANISMS": "none"}))
    assert told.startswith("AMQPD_AUTH_MECHANISMS is an empty list, allowed is a list, each entry 'PLAIN'")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(None, {"AMQPD_LIMITS_HEARTBEAT_S": "", "RABBITMQ_DEFAULT_USER": ""}) == load(None, {})


def test_later_sources_win(load_text: Loader) -> None:
    config = load_text(
        'default_user = "file"\ndefault_vhost = "file"\ndata_dir = "file"\nmemory = true',
        {"RABBITMQ_DEFAULT_VHOST": "rabbit", "RABBITMQ_DEFAULT_USER": "rabbit", "AMQPD_DEFAULT_USER": "amqpd",
         "AMQPD_DATA_DIR": "amqpd"},
        data_dir="command line")
    assert (config.default_user, config.default_vhost, str(config.data_dir), config.memory) == (
        "amqpd", "rabbit", "command line", True)


@pytest.mark.parametrize(("text", "told"), [
    ('auth_mechanisms = []', "amqpd.toml line 1: auth_mechanisms is an empty list, allowed is a list, each entry "
                             "'PLAIN', 'AMQPLAIN', 'SCRAM-SHA-256', 'EXTERNAL' or 'ANONYMOUS'"),
    ('auth_mechanisms = ["plain"]', "amqpd.toml line 1: auth_mechanisms[0] is 'plain', allowed is 'PLAIN', 'AMQPLAIN', "
                                    "'SCRAM-SHA-256', 'EXTERNAL' or 'ANONYMOUS'"),
    ('auth_mechanisms = ["PLAIN", "PLAIN"]',
     "amqpd.toml line 1: auth_mechanisms lists PLAIN more than once; delete one of them"),
    ('auth_mechanisms = ["PLAIN", "ANONYMOUS"]',
     "amqpd.toml line 1: auth_mechanisms lists ANONYMOUS, which needs a user: set login.anonymous_user, or delete "
     "ANONYMOUS"),
])
def test_mechanisms_that_cannot_be_offered_are_refused(load_text: Loader, text: str, told: str) -> None:
    assert problems(lambda: load_text(text)) == [told]


def test_the_mechanisms_of_the_configuration_are_those_there_are() -> None:
    assert set(get_args(AuthMechanism)) == set(MECHANISMS)
    assert Config().auth_mechanisms == LoginSettings().mechanisms


def test_rabbitmqs_container_variables_make_the_default_user() -> None:
    config = load(None, {"RABBITMQ_DEFAULT_USER": "u", "RABBITMQ_DEFAULT_PASS": "p", "RABBITMQ_DEFAULT_VHOST": "v"})
    assert (config.default_user, config.default_password.reveal(), config.default_vhost) == ("u", "p", "v")


def test_a_password_file_is_refused_as_rabbitmqs_container_does() -> None:
    assert problems(lambda: load(None, {"RABBITMQ_DEFAULT_PASS_FILE": "/run/secret"})) == [
        "RABBITMQ_DEFAULT_PASS_FILE is set but not read: put the value itself in RABBITMQ_DEFAULT_PASS"]


def test_a_variable_that_is_no_setting_is_refused_with_the_nearest() -> None:
    assert problems(lambda: load(None, {"AMQPD_LIMITS_HEARTBEAT": "5"})) == [
        "AMQPD_LIMITS_HEARTBEAT is not a setting; did you mean AMQPD_LIMITS_HEARTBEAT_S?"]


def test_a_user_of_rabbitmqs_variables_needs_a_password(load_text: Loader) -> None:
    assert problems(lambda: load(None, {"RABBITMQ_DEFAULT_USER": "u"})) == [
        "RABBITMQ_DEFAULT_USER is set without RABBITMQ_DEFAULT_PASS: set the password too, there is none by default"]
    assert load_text('default_password = "p"', {"RABBITMQ_DEFAULT_USER": "u"}).default_user == "u"
    assert load(None, {"RABBITMQ_DEFAULT_USER": "u", "AMQPD_DEFAULT_PASSWORD": "p"}).default_user == "u"


@pytest.mark.parametrize("variable, hint", [
    ("RABBITMQ_DEFAULT_PASSWORD", "did you mean RABBITMQ_DEFAULT_PASS?"), ("RABBITMQ_DEFAULT_XYZZY", "unset it")])
def test_a_misspelt_variable_of_rabbitmqs_is_refused(variable: str, hint: str) -> None:
    assert problems(lambda: load(None, {variable: "x"})) == [f"{variable} is not read; {hint}"]


@pytest.mark.parametrize("second", ["127.0.0.1:5672", ":5672"])
def test_the_same_listener_twice_is_refused(load_text: Loader, second: str) -> None:
    assert problems(lambda: load_text(f'listeners = [":0", ":0", "127.0.0.1:5672", "{second}"]')) == [
        f"amqpd.toml line 1: listeners[3] is '{second}', which is listed already; delete one of them"]


def test_a_variable_like_no_other_is_refused() -> None:
    assert problems(lambda: load(None, {"AMQPD_XYZZY": ""})) == ["AMQPD_XYZZY is not a setting; unset it"]


@pytest.mark.parametrize("variable", [
    "AMQPD_SERVICE_HOST", "AMQPD_SERVICE_PORT", "AMQPD_SERVICE_PORT_AMQP", "AMQPD_PORT", "AMQPD_PORT_5672_TCP",
    "AMQPD_PORT_5672_TCP_PROTO", "AMQPD_PORT_5672_TCP_PORT", "AMQPD_PORT_5672_TCP_ADDR", "AMQPD_CONFIG_FILE",
])
def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake(variable: str) -> None:
    assert load(None, {variable: "tcp://10.0.0.1:5672"}) == load(None, {})


def test_a_variable_of_the_wrong_type_is_named() -> None:
    assert problems(lambda: load(None, {"AMQPD_LIMITS_FRAME_MAX": "big"})) == [
        "AMQPD_LIMITS_FRAME_MAX is 'big', allowed is a whole number from 4096 to 16777216"]


def test_a_variable_that_is_not_utf_8_is_refused() -> None:
    told = problems(lambda: load(None, {"AMQPD_DEFAULT_USER": "\udcff", "AMQPD_DEFAULT_PASSWORD": "\udcff"}))
    assert told == [
        "AMQPD_DEFAULT_USER is '\\udcff', allowed is a text of 1 to 255 bytes",
        "AMQPD_DEFAULT_PASSWORD is ***, allowed is a text that is not empty",
    ]


def test_a_home_folder_in_the_data_dir_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/till")
    assert load(None, {"AMQPD_DATA_DIR": "~/data"}).data_dir == Path("/home/till/data")


# Mistakes in the file

@pytest.mark.parametrize("text, told", [
    ('memory = 1', "memory is 1, allowed is true or false"),
    ('durability = "fast"', "durability is 'fast', allowed is 'power' or 'process'"),
    ('limits.heartbeat_s = "60s"', "limits.heartbeat_s is '60s', allowed is a whole number from 0 to 65535"),
    ('limits.heartbeat_s = true', "limits.heartbeat_s is true, allowed is a whole number from 0 to 65535"),
    ('limits.max_message_size = 536870913',
     "limits.max_message_size is 536870913, allowed is a whole number from 1 to 536870912"),
    ('limits.handshake_timeout_s = nan', "limits.handshake_timeout_s is nan, allowed is a number from 0.1 to 600"),
    ('limits = 3', "limits has to be a table"),
    ('listeners = "127.0.0.1:5672"',
     "listeners is '127.0.0.1:5672', allowed is a list, each entry HOST:PORT, such as '127.0.0.1:5672' or '[::1]:0'"),
    ('data_dir = ""', "data_dir is '', allowed is the path of a directory"),
    ('default_user = "' + "é" * 128 + '"',
     "default_user is '" + "é" * 79 + "…, allowed is a text of 1 to 255 bytes"),
    ('lisners = []', "lisners is not a setting; did you mean listeners?"),
    ('heartbeat_s = 5', "heartbeat_s is not a setting; did you mean limits.heartbeat_s?"),
    ('limits.heartbeat = 5', "limits.heartbeat is not a setting; did you mean limits.heartbeat_s?"),
    ('log.xyzzy = 5', "log.xyzzy is not a setting; allowed are level, format"),
    ('[queues]\nname = "q"', "queues has to be a list of tables, each headed [[queues]]"),
    ('queues = [{}]', "queues[0] has no name"),
    ('queues = [{name = "a.b", durable = true}]',
     "queues.'a.b'.durable is not a setting; allowed are name, vhost, auto_delete, arguments"),
])
def test_a_mistake_is_told_in_one_line_with_its_place(load_text: Loader, text: str, told: str) -> None:
    assert problems(lambda: load_text(text)) == [f"amqpd.toml line 1: {told}"]


def test_every_mistake_is_told_in_the_order_of_the_lines(load_text: Loader) -> None:
    told = problems(lambda: load_text(
        'memory = 1\nlisners = []\n\n[log]\n# a comment\nlevel = """\nlou\nd"""\n\n[limits]\nframe_max = 1\n'))
    assert [line.split(" ")[2] for line in told] == ["1:", "2:", "6:", "11:"]


def test_a_control_character_in_a_value_is_shown_escaped(load_text: Loader) -> None:
    told, = problems(lambda: load_text('log.level = "a\\nb\\u001b"'))
    assert "'a\\nb\\x1b'" in told


def test_text_that_is_no_toml_is_told_with_its_line(load_text: Loader) -> None:
    told, = problems(lambda: load_text("memory = true\nlog = \n"))
    assert told == "amqpd.toml line 2: is not TOML: Invalid value"


@pytest.mark.parametrize("name, text, is_hinted", [
    ("rabbitmq.conf", "x\n", True),
    ("a", "# comment\r\n\n  default_user = shop\n", True),
    ("a", "load_definitions = /etc/definitions.json\n", True),
    ("a", "memory = true\nlog = \n", False),
    ("a", "default_user = 'shop'\ndefault_pass = b\n", False),
])
def test_a_rabbitmq_conf_in_place_of_toml_is_told_which_option_it_needs(
    tmp_path: Path, name: str, text: str, is_hinted: bool
) -> None:
    (tmp_path / name).write_text(text)
    told, = problems(lambda: load(str(tmp_path / name), {}))
    assert told.endswith("; for a rabbitmq.conf use --rabbitmq-conf") is is_hinted and "is not TOML: " in told


def test_a_file_that_ends_too_early_is_told_with_its_last_line(load_text: Loader) -> None:
    told, = problems(lambda: load_text('memory = true\nlisteners = ["a",\n\n'))
    assert told.startswith("amqpd.toml line 2: is not TOML: ")


def test_a_file_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b'memory = true\ndata_dir = "\xff"\n')
    assert problems(lambda: load(str(path), {})) == [f"{path} line 2: is not UTF-8"]


def test_a_file_that_is_missing_is_told() -> None:
    assert problems(lambda: load("/nowhere/amqpd.toml", {})) == [
        "/nowhere/amqpd.toml: cannot be read: No such file or directory"]


# Declarations

def test_a_declaration_says_where_it_stands(load_text: Loader) -> None:
    config = load_text('[[exchanges]]\nname = "a"\n\n[[exchanges]]\nname = "b.c"\n[[bindings]]\nsource = "a"\n'
                       'destination = "b"\n')
    assert [declaration.where for declaration in (*config.exchanges, *config.bindings)] == [
        "amqpd.toml line 1: exchanges.a", "amqpd.toml line 4: exchanges.'b.c'", "amqpd.toml line 6: bindings[0]"]


def test_where_cannot_be_set(load_text: Loader) -> None:
    told, = problems(lambda: load_text('queues = [{name = "q", where = "x"}]'))
    assert "queues.q.where is not a setting" in told


def test_a_vhost_left_out_is_the_default_one(load_text: Loader) -> None:
    config = load_text(
        '[[queues]]\nname = "a"\n[[queues]]\nname = "b"\nvhost = "other"\n[[users]]\nname = "u"\npassword = "p"\n'
        '[[users.permissions]]\nconfigure = ""\nwrite = ""\nread = ""\n', {"RABBITMQ_DEFAULT_VHOST": "shop"})
    assert [queue.vhost for queue in config.queues] == ["shop", "other"]
    assert config.users[0].permissions[0].vhost == "shop"


@pytest.mark.parametrize("kind, fields", [
    ("vhosts", 'name = "x"'), ("users", 'name = "x"\npassword = "p"'), ("queues", 'name = "x"'),
    ("exchanges", 'name = "x"'), ("policies", 'name = "x"\npattern = ""\ndefinition = {}'),
    ("operator_policies", 'name = "x"\npattern = ""\ndefinition = {}'),
])
def test_what_is_declared_twice_is_refused(load_text: Loader, kind: str, fields: str) -> None:
    assert problems(lambda: load_text(f"[[{kind}]]\n{fields}\n" * 2))[0].endswith(
        f": {kind}.x is declared already: amqpd.toml line 1: {kind}.x; delete one of them")


@pytest.mark.parametrize("line, told", [
    ('default_queue_type = "stream"',
     "vhosts.v.default_queue_type is 'stream', allowed is '', 'classic' or 'quorum'"),
    ("protected_from_deletion = 1", "vhosts.v.protected_from_deletion is 1, allowed is true or false"),
    ("limits = 5", "vhosts.v.limits has to be a table"),
    ("limits = {max_queues = -2}", "vhosts.v.limits.max_queues is -2, allowed is a whole number from -1 to 10000000"),
    ("limits = {max_queue = 1}",
     "vhosts.v.limits.max_queue is not a setting; did you mean vhosts.v.limits.max_queues?"),
    ('tags = "a"', "vhosts.v.tags is 'a', allowed is a list, each entry a text of 1 to 255 bytes"),
    ("description = 1", "vhosts.v.description is 1, allowed is a text"),
])
def test_what_is_wrong_with_a_vhost_is_told(load_text: Loader, line: str, told: str) -> None:
    found, = problems(lambda: load_text(f'[[vhosts]]\nname = "v"\n{line}\n'))
    assert found.endswith(told)


def test_the_same_name_in_two_vhosts_is_fine(load_text: Loader) -> None:
    config = load_text('queues = [{name = "q", vhost = "a"}, {name = "q", vhost = "b"}]')
    assert len(config.queues) == 2


@pytest.mark.parametrize("kind", ["queues", "exchanges"])
def test_reserved_names_are_refused(load_text: Loader, kind: str) -> None:
    assert problems(lambda: load_text(f'[[{kind}]]\nname = "amq.x"')) == [
        f"amqpd.toml line 1: {kind}.'amq.x' is a reserved name, allowed is one that does not start with 'amq.'"]


def test_arguments_that_are_no_field_table_are_refused(load_text: Loader) -> None:
    told, = problems(lambda: load_text('queues = [{name = "q", arguments = {x = 2020-01-01}}]'))
    assert told == "amqpd.toml line 1: queues.q.arguments are not a field table: a date cannot be a field"


def test_a_permission_that_is_no_regular_expression_is_refused(load_text: Loader) -> None:
    told, = problems(lambda: load_text(
        'users = [{name = "u", password = "p", permissions = [{configure = "(", write = "", read = ""}]}]'))
    assert told.startswith(
        "amqpd.toml line 1: users.u.permissions[0].configure is '(', allowed is a regular expression: missing )")


def test_a_policy_has_defaults(load_text: Loader) -> None:
    policy, = load_text('policies = [{name = "p", pattern = "^q", definition = {expires = 5}}]').policies
    assert (policy.vhost, policy.priority, policy.apply_to) == ("/", 0, "all")


def test_a_policy_and_an_operators_may_share_a_name(load_text: Loader) -> None:
    fields = '[{name = "p", pattern = "", definition = {expires = 5}}]'
    config = load_text(f"policies = {fields}\noperator_policies = {fields}")
    assert config.policies[0].name == config.operator_policies[0].name == "p"


@pytest.mark.parametrize("kind", ["policies", "operator_policies"])
@pytest.mark.parametrize("fields, told", [
    ('pattern = "(", definition = {}', ".pattern is '(', allowed is a regular expression: missing )"),
    ('pattern = ""', " has no definition"),
    ('pattern = "", definition = 5', ".definition is 5, allowed is a table"),
    ('pattern = "", definition = {}, apply_to = "x"',
     ".apply_to is 'x', allowed is 'all', 'queues', 'classic_queues', 'quorum_queues' or 'exchanges'"),
    ('pattern = "", definition = {}, priority = "high"', ".priority is 'high', allowed is a whole number from"),
])
def test_a_policy_that_is_none_is_refused(load_text: Loader, kind: str, fields: str, told: str) -> None:
    problem, = problems(lambda: load_text(f'{kind} = [{{name = "p", {fields}}}]'))
    assert problem.startswith(f"amqpd.toml line 1: {kind}.p{told}")


@pytest.mark.parametrize("fields, which", [("", "neither"), ('password = "a"\npassword_hash = "b"', "both")])
def test_a_user_has_either_a_password_or_a_hash(load_text: Loader, fields: str, which: str) -> None:
    assert problems(lambda: load_text(f'[[users]]\nname = "u"\n{fields}')) == [
        f"amqpd.toml line 1: users.u has {which} of password and password_hash, allowed is one of them"]


# Secrets

def test_a_secret_is_never_shown() -> None:
    secret = Secret("hunter2")
    assert f"{secret} {secret!r} {[secret]}" == "*** *** [***]"
    assert secret.reveal() == "hunter2"


def test_the_representation_of_a_config_shows_no_password(load_text: Loader) -> None:
    config = load_text('default_password = "hunter2"\n[[users]]\nname = "u"\npassword_hash = "hunter2"')
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize("text", [
    'default_password = ["hunter2"]',
    'users = "hunter2"',
    'users = ["hunter2"]',
    '[[users]]\nname = "u"\npassword = ["hunter2"]',
    '[[users]]\nname = "u"\npassword = "hunter2"\npassword_hash = "hunter2"',
    '[[users]]\nname = "u"\npassword = "hunter2"\npermissions = "x"',
    '[users]\nu = "hunter2"',
])
def test_no_mistake_shows_a_password(load_text: Loader, text: str) -> None:
    assert not any("hunter2" in line for line in problems(lambda: load_text(text)))


# Lines

def test_lines_are_found_through_every_kind_of_statement() -> None:
    lines = find_lines("\n".join([
        '# comment',
        'a.b = 1',
        '[t]',
        'x = [',
        '  1, # one',
        '  {y = 2},',
        ']',
        'z = """',
        '[not a table]',
        '"""',
        '[[l]]',
        '[l.inner]',
        'k = 1',
        '[[l]]',
        '[[l.more]]',
        'k = 2',
    ]))
    assert lines[("a", "b")] == 2
    assert lines[("t",)] == 3
    assert lines[("t", "x")] == lines[("t", "x", 1, "y")] == 4
    assert lines[("t", "z")] == 8
    assert lines[("l", 0)] == 11
    assert lines[("l", 0, "inner", "k")] == 13
    assert lines[("l", 1)] == 14
    assert lines[("l", 1, "more", 0, "k")] == 16


names = st.text("abc", min_size=1, max_size=2)
values = st.one_of(st.integers().map(str), st.just('"x"'), st.just("[\n1,\n{a = 2},\n]"), st.just("'''\n[x]\n'''"))


@given(st.lists(st.tuples(names, values), max_size=6, unique_by=lambda pair: pair[0]), st.integers(0, 3))
def test_every_key_of_a_file_has_the_line_it_stands_on(pairs: list[tuple[str, str]], blank: int) -> None:
    text = "[[t]]\n" + "\n" * blank + "".join(f"{name} = {value}\n" for name, value in pairs)
    rows = text.split("\n")
    for path, line in find_lines(text).items():
        if len(path) == 3:
            assert rows[line - 1].startswith(f"{path[2]} = ")
    assert {path[2] for path in find_lines(text) if len(path) == 3} == {name for name, _ in pairs}


def test_the_settings_in_effect_are_told_without_secrets() -> None:
    told = effective(Config(default_password=Secret("open sesame"), listeners=(Listener(":5672"),)))
    assert told.keys() == SETTINGS.keys()
    assert "open sesame" not in json.dumps(told)
    assert (told["default_password"], told["listeners"], told["limits.heartbeat_s"]) == ("***", [":5672"], 60)
