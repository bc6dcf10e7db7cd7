"""The program `amqpd`: arguments, exit codes, and one line for each error."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

from amqpd import __version__, cli, logs, program
from amqpd.config import Config, Examination, load


class StartError(Exception):
    """What amqpd.server.process raises."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """What a server in place of amqpd's is told to serve; it ends at once with exit code 0."""
    configs: list[Config] = []

    def serve(config: Config, read: Callable[[], Examination]) -> int:
        assert read().config == config      # as SIGHUP does it
        configs.append(config)
        return 0

    use_server(monkeypatch, serve)
    monkeypatch.chdir(tmp_path)
    return configs


def use_server(monkeypatch: pytest.MonkeyPatch, serve: Callable[[Config, Callable[[], Examination]], int]) -> None:
    package, module = ModuleType("amqpd.server"), ModuleType("amqpd.server.process")
    module.serve, module.StartError = serve, StartError     # type: ignore[attr-defined]  # a stand-in has no types
    package.process = module                                # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "amqpd.server", package)
    monkeypatch.setitem(sys.modules, "amqpd.server.process", module)
    monkeypatch.setattr(logs, "configure", lambda level, style: None)
    for variable in ("AMQPD_CONFIG_FILE", "AMQPD_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)


# Serving

@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_without_arguments_it_serves_the_defaults(served: list[Config], arguments: list[str]) -> None:
    assert cli.main(arguments) == 0
    assert served == [Config()]


def test_options_without_a_command_are_those_of_serve(served: list[Config]) -> None:
    assert cli.main(["--memory", "--listen", ":0", "--listen", "[::1]:0", "--data-dir", "d", "--log-level", "debug",
                     "--log-format", "json", "--management", "[::1]:0", "--metrics", "none"]) == 0
    config, = served
    assert config.listeners == (":0", "[::1]:0")
    assert (config.management.listeners, config.management.metrics_listeners) == (("[::1]:0",), ())
    assert (config.memory, str(config.data_dir), config.log.level, config.log.format) == (True, "d", "debug", "json")


@pytest.mark.parametrize("by_variable", [False, True])
def test_the_config_file_is_named_by_option_or_variable(
    served: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    path = tmp_path / "x.toml"
    path.write_text("limits.heartbeat_s = 7")
    if by_variable:
        monkeypatch.setenv("AMQPD_CONFIG_FILE", str(path))
    assert cli.main([] if by_variable else ["--config", str(path)]) == 0
    assert served[0].limits.heartbeat_s == 7


def test_options_cover_the_environment(served: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQPD_DATA_DIR", "environment")
    monkeypatch.setenv("AMQPD_MEMORY", "true")
    assert cli.main(["--data-dir", "option"]) == 0
    assert (str(served[0].data_dir), served[0].memory) == ("option", True)


def test_the_exit_code_is_the_servers(served: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    use_server(monkeypatch, lambda config, read: 74)
    assert cli.main([]) == 74


def test_a_failed_start_is_one_line_and_its_exit_code(
    served: list[Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(config: Config, read: Callable[[], Examination]) -> int:
        raise StartError("cannot listen on 127.0.0.1:5672: address in use", 69)

    use_server(monkeypatch, serve)
    assert cli.main([]) == 69
    assert capsys.readouterr() == ("", "amqpd: cannot listen on 127.0.0.1:5672: address in use\n")


def test_a_bug_is_one_line_and_70(
    served: list[Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(config: Config, read: Callable[[], Examination]) -> int:
        raise ValueError("two\nlines")

    use_server(monkeypatch, serve)
    assert cli.main([]) == 70
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("amqpd: internal error, please report it: ValueError: two lines (")
    assert "test_cli.py line " in line


def test_a_wrong_variable_stops_the_start(
    served: list[Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQPD_MEMRY", "1")
    assert cli.main([]) == 78
    assert capsys.readouterr().err == "amqpd: AMQPD_MEMRY is not a setting; did you mean AMQPD_MEMORY?\n"
    assert not served


# Checking a file

@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the default data directory in a directory without one."""
    monkeypatch.chdir(tmp_path)


def test_check_config_says_that_a_file_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text('queues = [{name = "a"}, {name = "b"}]\nvhosts = [{name = "v"}]')
    assert cli.main(["check-config", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: fine; declares vhosts 1, users 0, policies 0, operator_policies 0, exchanges 0, queues 2, "
        "bindings 0\n")


def test_check_config_says_that_a_file_of_definitions_is_loaded_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, definitions = tmp_path / "x.toml", tmp_path / "definitions.json"
    path.write_text(f'load_definitions = "{definitions}"')
    definitions.write_text('{"vhosts": [{"name": "v"}]}')
    assert cli.main(["check-config", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f", bindings 0; loads the definitions in {definitions} besides\n")


def test_check_config_tells_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text("memory = 1\nlog.level = 2\n")
    assert cli.main(["check-config", str(path)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f"amqpd: {path} line 1: memory is 1, allowed is true or false",
        f"amqpd: {path} line 2: log.level is 2, allowed is 'debug', 'info', 'warning' or 'error'",
    ]


def test_check_config_tells_what_no_broker_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[[queues]]\nname = "q"\narguments = {x-message-ttl = -5, x-max-length = "many"}\n'
                    '[[policies]]\nname = "p"\npattern = ""\ndefinition = {max-lenght = 5, expires = "x"}')
    assert cli.main(["check-config", str(path)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f"amqpd: {path} line 4: policies.p: 'max-lenght' is not a key of policies, did you mean 'max-length'?; "
        "change the line",
        f"amqpd: {path} line 4: policies.p: expires: 'x' is not a valid queue expiry; change the line",
        f"amqpd: {path} line 1: queues.q: x-message-ttl may not be negative; change the line",
        f"amqpd: {path} line 1: queues.q: x-max-length has to be a whole number; change the line",
    ]


def test_check_config_tells_a_missing_ca_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "amqpd.toml"
    path.write_text('[tls]\nlisteners = ["127.0.0.1:0"]\ncertificate = "no.pem"\nkey = "no.key"\n'
                    'client_certificates = "optional"\n')
    assert cli.main(["check-config", str(path)]) == 78
    line, = capsys.readouterr().err.splitlines()
    assert "line 5: tls.client_certificates is 'optional' and needs tls.ca" in line


def test_check_config_reads_the_environment_as_a_start_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text('queues = [{name = "q", vhost = "none"}]')
    monkeypatch.setenv("AMQPD_MEMRY", "1")
    monkeypatch.setenv("RABBITMQ_DEFAULT_USR", "u")
    monkeypatch.setenv("RABBITMQ_DEFAULT_USER", "u")
    monkeypatch.setenv("AMQPD_LISTENERS", "127.0.0.1:1,:1,nowhere.invalid:2")
    assert cli.main(["check-config", str(path)]) == 78
    told = capsys.readouterr().err.splitlines()
    assert sorted(told[:2], reverse=True) + told[2:4] == [
        "amqpd: RABBITMQ_DEFAULT_USR is not read; did you mean RABBITMQ_DEFAULT_USER?",
        "amqpd: AMQPD_MEMRY is not a setting; did you mean AMQPD_MEMORY?",
        "amqpd: RABBITMQ_DEFAULT_USER is set without RABBITMQ_DEFAULT_PASS: set the password too, there is none by "
        "default",
        "amqpd: AMQPD_LISTENERS is ':1', which is listed already; delete one of them",
    ]
    assert told[4].startswith("amqpd: AMQPD_LISTENERS: cannot listen on nowhere.invalid:2: ")
    assert told[5:] == [f"amqpd: {path} line 1: queues.q: no vhost 'none'; declare it too or change the line"]


def test_what_cannot_be_used_does_not_hide_what_else_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text("""\
heartbeat = 5
listeners = ["nowhere.invalid:1"]
auth_mechanisms = ["ANONYMOUS"]
[limits]
frame_max = 1
[[users]]
name = "u"
password = 3
[[policies]]
name = "p"
pattern = "("
definition = {}
[[queues]]
name = "q"
arguments = { x-max-length = -1 }
[[bindings]]
source = "amq.topic"
destination = "r"
[[queues]]
nam = "r"
""")
    assert cli.main(["check-config", str(path)]) == 78
    told = [line.removeprefix(f"amqpd: {path} line ") for line in capsys.readouterr().err.splitlines()]
    assert [line.split(" ", 1)[0] for line in told] == ["1:", "5:", "8:", "19:", "20:", "9:", "3:", "2:", "13:"]
    assert [line for line in told if line[:2] in ("3:", "13")] == [
        "3: auth_mechanisms lists ANONYMOUS, which needs a user: set login.anonymous_user, or delete ANONYMOUS",
        "13: queues.q: x-max-length may not be negative; change the line"]


def test_a_warning_alone_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text('queues = [{name = "q", arguments = {x-max-lenght = 5, note = "mine"}}]')
    assert cli.main(["check-config", str(path)]) == 0
    told = capsys.readouterr()
    assert told.err == (f"amqpd: warning: {path} line 1: queues.q: the argument x-max-lenght has no effect; did you "
                        "mean x-max-length?\n")
    assert ": fine; " in told.out


def test_what_is_wrong_with_a_pattern_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[[policies]]\nname = "p"\npattern = "("\ndefinition = {expires = 5}\n'
                    '[[bindings]]\nsource = "nope"\ndestination = "q"\n')
    assert cli.main(["check-config", str(path)]) == 78
    pattern, exchange, queue = capsys.readouterr().err.splitlines()
    assert "policies.p.pattern is '('" in pattern
    assert exchange.endswith("bindings[0]: no exchange 'nope' in vhost '/'; declare it too or change the line")
    assert queue.endswith("bindings[0]: no queue 'q' in vhost '/'; declare it too or change the line")


def test_the_option_names_the_file_as_for_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text("")
    assert cli.main(["check-config", "--config", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: fine; ")


def test_a_fault_of_one_declaration_hides_none_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[[queues]]\nname = "q"\narguments = {note = 1970-01-01}\n'
                    '[[queues]]\nname = "q2"\narguments = {x-expires = "x"}\n'
                    '[[bindings]]\nsource = "nope"\ndestination = "q"\n')
    assert cli.main(["check-config", str(path)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f"amqpd: {path} line 1: queues.q.arguments are not a field table: a date cannot be a field",
        f"amqpd: {path} line 4: queues.q2: x-expires has to be a whole number; change the line",
        f"amqpd: {path} line 7: bindings[0]: no exchange 'nope' in vhost '/'; declare it too or change the line",
    ]


# RabbitMQ's configuration

@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `rabbitmq.conf` in the current folder, with a line that has no effect."""
    monkeypatch.chdir(tmp_path)
    Path("r.conf").write_text("heartbeat = 7\ncluster_name = x\nlisteners.tcp.a = 127.0.0.1:1\n")
    return tmp_path


def test_a_start_reads_rabbitmqs_files_and_logs_the_warnings(
    served: list[Config], conf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("s.conf").write_text("frame_max = 8192\n")
    assert cli.main(["--rabbitmq-conf", "r.conf", "--rabbitmq-conf", "s.conf", "--listen", ":0"]) == 0
    config, = served
    assert (config.limits.heartbeat_s, config.limits.frame_max, config.listeners) == (7, 8_192, (":0",))
    assert caplog.record_tuples == [
        ("amqpd.config", logging.WARNING, "r.conf line 2: cluster_name has no effect: amqpd has no cluster")]


def test_a_wrong_line_of_rabbitmqs_file_stops_the_start(
    served: list[Config], conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RABBITMQ_CONFIG_FILE", "s.conf")
    Path("s.conf").write_text("heartbeat = often\n")
    assert (cli.main([]), served) == (78, [])
    assert capsys.readouterr().err == (
        "amqpd: s.conf line 1: heartbeat is 'often', allowed is a whole number from 0 on\n")


@pytest.mark.parametrize("arguments", [["--rabbitmq-conf", "r.conf"], ["a.toml", "--rabbitmq-conf", "r.conf"]])
def test_check_config_knows_rabbitmqs_files(
    conf: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.toml").write_text("limits.heartbeat_s = 7\n")
    assert cli.main(["check-config", *arguments]) == 0
    told = capsys.readouterr()
    assert told.err == "amqpd: warning: r.conf line 2: cluster_name has no effect: amqpd has no cluster\n"
    assert told.out.startswith(f"{', '.join(name for name in arguments if name[0] != '-')}: fine; ")
    Path("r.conf").write_text("cluster_name = x\nheartbeat = -1\n")
    assert cli.main(["check-config", *arguments]) == 78
    assert capsys.readouterr().err.splitlines() == [
        "amqpd: warning: r.conf line 1: cluster_name has no effect: amqpd has no cluster",
        "amqpd: r.conf line 2: heartbeat is '-1', allowed is a whole number from 0 on",
    ]


def test_a_file_of_rabbitmqs_is_converted(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert-config", "r.conf"]) == 0
    printed = capsys.readouterr().out
    Path("a.toml").write_text(printed)
    assert load("a.toml", {}) == load(None, {}, rabbitmq_conf=["r.conf"])
    assert cli.main(["check-config", "a.toml"]) == 0


def test_a_file_of_rabbitmqs_with_a_wrong_line_is_not_converted(
    conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.conf").write_text("heartbeat = often\n")
    assert cli.main(["convert-config", "r.conf", "s.conf"]) == 78
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "", "amqpd: s.conf line 1: heartbeat is 'often', allowed is a whole number from 0 on\n")


# Usage

@pytest.mark.parametrize("arguments, complaint", [
    (["bogus"], "amqpd: No such command 'bogus'; try 'amqpd --help'"),
    (["--bogus"], "amqpd: No such option '--bogus'; try 'amqpd serve --help'"),
    (["serve", "x"], "amqpd: Got unexpected extra argument (x); try 'amqpd serve --help'"),
    (["check-config"], "amqpd: Missing argument 'FILE'; try 'amqpd check-config --help'"),
    (["check-config", "a", "--config", "b"], "amqpd: FILE is given twice; try 'amqpd check-config --help'"),
    (["--listen", ":0", "--listen", "5672"],
     "amqpd: Invalid value for '--listen': '5672', allowed is HOST:PORT, such as '127.0.0.1:5672' or '[::1]:0'; "
     "try 'amqpd serve --help'"),
    (["serve", "--listen="],
     "amqpd: Invalid value for '--listen': '', allowed is HOST:PORT, such as '127.0.0.1:5672' or '[::1]:0'; "
     "try 'amqpd serve --help'"),
])
def test_wrong_usage_is_one_line_and_64(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 64
    assert capsys.readouterr().err == f"{complaint}\n"


@pytest.mark.parametrize("arguments, count", [(["--help"], 5), (["store", "--help"], 6)])
def test_help_says_what_each_command_does_to_the_end(
    arguments: list[str], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(listed) == count
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


def test_help_shows_the_options_of_serve_which_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    own, _, of_serve = capsys.readouterr().out.partition("Options of 'serve'")
    assert "  --version" in own and "  --data-dir" not in own
    assert "  --data-dir DIR" in of_serve and "  --listen HOST:PORT" in of_serve


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"amqpd {__version__}\n"


def test_help_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "check-config" in capsys.readouterr().out


def test_an_interrupt_is_130() -> None:
    @click.command("x")
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert program.run(interrupted, []) == 130


@pytest.mark.parametrize("arguments", [["--version"], ["check-config", "config/amqpd.toml"]])
def test_questions_are_answered_without_loading_the_broker(arguments: list[str]) -> None:
    program = "import sys; from amqpd.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent)
    loaded = {name for name in done.stderr.split() if name.startswith("amqpd.")}
    assert not loaded & {"amqpd.broker", "amqpd.server", "amqpd.store", "amqpd.session", "amqpd.wire"}


def test_a_reader_that_has_seen_enough_causes_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m amqpd --help | :"], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
