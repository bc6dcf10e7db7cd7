"""Run a private RabbitMQ from Debian's package, to check the expectations of the suite.

    python conformance/rabbitmq.py --port 5680 --dir /tmp/rabbit

prints `ready port=5680 pid=…` when the node accepts clients, and runs until SIGTERM or SIGINT. Everything that the node
owns is inside `--dir`: database, logs, Erlang cookie, configuration. It has its own node name, distribution port and
epmd, so it does not disturb other nodes on the host, and it listens on loopback only. Both processes are ended by id.

    python conformance/rabbitmq.py --restart-of /tmp/rabbit

stops that node cleanly, starts it again with the same data on the same port, and returns when it accepts clients; this
is a command for the suite's `--restart`. On SIGUSR1 the running script restarts its node. After each start it writes
the file `ready` in `--dir`: its own process id and that of the node.

    python conformance/rabbitmq.py --ctl-of /tmp/rabbit -- set_policy …

runs rabbitmqctl with these arguments on that node; this is a command for the suite's `--ctl`, up to and including `--`.
A node that was started with `--consumer-timeout MS` uses this timeout, and checks it several times a second instead of
once a minute; the suite needs the same option.

    python conformance/rabbitmq.py --port 5680 --dir /tmp/rabbit --management 15680
    curl -u guest:guest http://127.0.0.1:15680/api/overview

starts the management plugin too, with its HTTP API and page on that loopback port; the first line then has
`http=127.0.0.1:PORT` as well. With `--no-statistics` that plugin counts nothing.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGE = Path("/usr/lib/rabbitmq/lib")
BOOT_S = 120
STOP_S = 30
TICK_MS = 200

CONFIGURATION = """\
listeners.tcp.default = 127.0.0.1:{port}
loopback_users.guest = true
log.console = false
disk_free_limit.absolute = 50MB
"""
MANAGEMENT_CONFIGURATION = """\
management.tcp.ip = 127.0.0.1
management.tcp.port = {port}
management.disable_stats = {without_statistics}
"""
POLICY_FUNCTIONS = {
    "set_policy": "parse_set", "clear_policy": "delete",
    "set_operator_policy": "parse_set_op", "clear_operator_policy": "delete_op"}
PLAIN_FUNCTIONS = {
    "add_vhost": "rabbit_vhost:add", "delete_vhost": "rabbit_vhost:delete",
    "add_user": "rabbit_auth_backend_internal:add_user",
    "set_vhost_limits": "rabbit_vhost_limit:parse_set",
    "set_permissions": "rabbit_auth_backend_internal:set_permissions"}
TRACE_FUNCTIONS = {"trace_on": "rabbit_trace:start", "trace_off": "rabbit_trace:stop"}
ADVANCED_CONFIGURATION = "[{{rabbit, [{{consumer_timeout, {timeout}}}, {{channel_tick_interval, {tick}}}]}}].\n"


class RabbitMQ:
    """One node and its epmd. `start` returns when it serves clients, `stop` when both processes are gone."""

    def __init__(self, directory: Path, port: int, consumer_timeout_ms: int | None = None,
                 management_port: int | None = None, *, has_statistics: bool = True) -> None:
        self.directory = directory.resolve()
        self.port = port
        self.management_port = management_port
        self.has_statistics = has_statistics
        self.consumer_timeout_ms = consumer_timeout_ms
        self.node = f"conformance-{port}@localhost"
        self.environment = self._environment(epmd_port=free_port(), distribution_port=free_port())
        self._processes: list[subprocess.Popen] = []
        self._restart_wanted = False

    @property
    def pid(self) -> int:
        """The node's own process id."""
        return self._processes[-1].pid

    def start(self) -> None:
        """Start epmd and the node, in the foreground of this process, and wait until clients are served."""
        self._write_files()
        self._spawn(["epmd"], "epmd.log")
        self._start_node()

    def restart(self) -> None:
        """Ask the node to end; `run` starts it again. May be called by a signal handler."""
        self._restart_wanted = True
        self._processes[-1].terminate()

    def run(self) -> int:
        """Wait for the node to end, and start it again as often as it ended by `restart`."""
        while True:
            code = self._processes[-1].wait()
            if not self._restart_wanted:
                return code
            self._restart_wanted = False
            self._processes.pop()
            self._start_node()

    def stop(self) -> None:
        """End the node, then its epmd, by process id."""
        (self.directory / "ready").unlink(missing_ok=True)
        while self._processes:
            end(self._processes.pop())

    def _environment(self, *, epmd_port: int, distribution_port: int) -> dict[str, str]:
        here = self.directory
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(here),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_MNESIA_BASE": str(here / "mnesia"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_PID_FILE": str(here / "node.pid"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RUNNING_UNDER_SYSTEMD": "true",    # makes the script exec the node, so that its process id is ours to end
        }

    def _write_files(self) -> None:
        for folder in ("mnesia", "log"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        (self.directory / "rabbitmq.conf").write_text(self._configuration())
        (self.directory / "advanced.config").write_text(self._advanced_configuration())
        (self.directory / "environment.json").write_text(json.dumps(self.environment))
        (self.directory / "rabbitmq-env.conf").write_text("")
        plugins = "" if self.management_port is None else "rabbitmq_management"
        (self.directory / "enabled_plugins").write_text(f"[{plugins}].\n")

    def _configuration(self) -> str:
        general = CONFIGURATION.format(port=self.port)
        if self.management_port is None:
            return general
        return general + MANAGEMENT_CONFIGURATION.format(
            port=self.management_port, without_statistics="false" if self.has_statistics else "true")

    def _advanced_configuration(self) -> str:
        if self.consumer_timeout_ms is None:
            return "[].\n"
        return ADVANCED_CONFIGURATION.format(timeout=self.consumer_timeout_ms, tick=TICK_MS)

    def _start_node(self) -> None:
        self._spawn([str(server_script())], "server.log")
        self._wait_until_ready()
        unfinished = self.directory / "ready.new"
        unfinished.write_text(f"{os.getpid()} {self.pid}\n")
        unfinished.rename(self.directory / "ready")

    def _spawn(self, command: list[str], log: str) -> None:
        with open(self.directory / "log" / log, "ab") as output:
            self._processes.append(subprocess.Popen(
                command, env=self.environment, cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + BOOT_S
        while not answers(self.port) or not self._serves_http():
            if self._processes[-1].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start, see {self.directory / 'log'}")
            time.sleep(0.2)

    def _serves_http(self) -> bool:
        if self.management_port is None:
            return True
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.management_port), timeout=5):
                return True
        return False


def server_script() -> Path:
    """The package's own start script; the one in /usr/sbin insists on user rabbitmq."""
    found = sorted(PACKAGE.glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if not found:
        raise RuntimeError(f"no RabbitMQ under {PACKAGE}; apt-get install rabbitmq-server")
    return found[-1]


def free_port() -> int:
    """Return a loopback port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(port: int) -> bool:
    """Whether an AMQP broker greets on this port."""
    with contextlib.suppress(OSError):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    return False


def end(process: subprocess.Popen) -> None:
    """SIGTERM, then SIGKILL when that takes too long."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def restart(directory: Path) -> None:
    """Have the node in this folder restarted by the script that runs it, and wait until it serves clients again."""
    ready = directory / "ready"
    before = ready.read_text()
    os.kill(int(before.split()[0]), signal.SIGUSR1)
    deadline = time.monotonic() + STOP_S + BOOT_S
    while ready.read_text() == before:
        if time.monotonic() > deadline:
            raise RuntimeError(f"RabbitMQ did not restart, see {directory / 'log'}")
        time.sleep(0.1)


def control(directory: Path, words: list[str]) -> int:
    """Do what rabbitmqctl does with these words on the node in this folder; returns the exit code."""
    environment = json.loads((directory / "environment.json").read_text())
    if words[0] in POLICY_FUNCTIONS:
        return call_node(environment, policy_call(words))
    if words[0] in PLAIN_FUNCTIONS and not any(word.startswith("--") for word in words):
        return call_node(environment, plain_call(words))
    if words[0] in TRACE_FUNCTIONS:
        return call_node(environment, erlang_call(TRACE_FUNCTIONS[words[0]], [words[-1]]))
    command = [str(server_script().with_name("rabbitmqctl")), "--node", environment["RABBITMQ_NODENAME"], *words]
    return subprocess.run(command, env=environment).returncode


def policy_call(words: list[str]) -> str:
    """The call by which rabbitmqctl sets or clears a policy; the suite does so too often to wait for its start-up."""
    parser = argparse.ArgumentParser(prog="rabbitmqctl")
    parser.add_argument("-p", "--vhost", default="/")
    parser.add_argument("--priority", default="0")
    parser.add_argument("--apply-to", default="all")
    parser.add_argument("arguments", nargs=3 if words[0].startswith("set_") else 1)
    given = parser.parse_args(words[1:])
    options = [given.priority, given.apply_to] if words[0].startswith("set_") else []
    return erlang_call(
        f"rabbit_policy:{POLICY_FUNCTIONS[words[0]]}", [given.vhost, *given.arguments, *options, "rmq-cli"])


def plain_call(words: list[str]) -> str:
    """The call by which rabbitmqctl makes vhosts and users and sets limits, for the same reason."""
    parser = argparse.ArgumentParser(prog="rabbitmqctl")
    parser.add_argument("-p", "--vhost", default="/")
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args(words[1:])
    if words[0] == "set_permissions":
        given.arguments.insert(1, given.vhost)
    elif words[0] == "set_vhost_limits":
        given.arguments.insert(0, given.vhost)
    return erlang_call(PLAIN_FUNCTIONS[words[0]], [*given.arguments, "rmq-cli"])


def erlang_call(function: str, values: list[str]) -> str:
    """A call of a function with binaries, as `call_node` takes it."""
    binaries = [f"<<{','.join(str(octet) for octet in value.encode())}>>" for value in values]
    return f"{function}({', '.join(binaries)}).\n"


def call_node(environment: dict[str, str], expression: str) -> int:
    """Evaluate an Erlang expression on the node; anything but `ok` is printed and an error."""
    cookie = Path(environment["HOME"], ".erlang.cookie").read_text()
    command = ["erl_call", "-e", "-n", environment["RABBITMQ_NODENAME"], "-c", cookie]
    done = subprocess.run(command, env=environment, input=expression, capture_output=True, text=True)
    if done.stdout == "{ok, ok}":
        return 0
    print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode or 1


def run(rabbit: RabbitMQ) -> int:
    """Run a node in the foreground; SIGUSR1 restarts it, SIGTERM and SIGINT end it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    signal.signal(signal.SIGUSR1, lambda *_: rabbit.restart())
    try:
        rabbit.start()
        http = "" if rabbit.management_port is None else f" http=127.0.0.1:{rabbit.management_port}"
        print(f"ready port={rabbit.port}{http} pid={rabbit.pid}", flush=True)
        return rabbit.run()
    finally:
        rabbit.stop()


def main() -> int:
    """Run a node until a signal or its end, restart a running one, or run rabbitmqctl on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="loopback port for clients (default: a free one)")
    folder = parser.add_mutually_exclusive_group(required=True)
    folder.add_argument("--dir", type=Path, help="folder for everything the node writes")
    folder.add_argument("--restart-of", type=Path, metavar="DIR", help="restart the node that runs in this folder")
    folder.add_argument("--ctl-of", type=Path, metavar="DIR", help="run rabbitmqctl on the node in this folder")
    parser.add_argument("--consumer-timeout", type=int, metavar="MS", help="the node's consumer timeout")
    parser.add_argument("--management", type=int, metavar="PORT",
                        help="loopback port of the management plugin, which is not started without this")
    parser.add_argument("--no-statistics", action="store_true", help="start that plugin with its statistics off")
    parser.add_argument("words", nargs="*", help="rabbitmqctl's, after --")
    options = parser.parse_args()
    if options.restart_of:
        restart(options.restart_of)
        return 0
    if options.ctl_of:
        return control(options.ctl_of, options.words)
    port = options.port or free_port()
    return run(RabbitMQ(options.dir, port, options.consumer_timeout, options.management,
                        has_statistics=not options.no_statistics))


if __name__ == "__main__":
    sys.exit(main())
