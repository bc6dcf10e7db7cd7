"""The variables that set up a node of RabbitMQ: those that have a meaning for amqpd, and those that are warned of.

RABBITMQ_DEFAULT_… are in `sources`, and those that name configuration files in `rabbitmq_files`. Other variables that
begin with RABBITMQ_ are not looked at: applications and Kubernetes set such ones too.

RabbitMQ docs/configure, rabbitmq-env.conf(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from amqpd.config.rabbitmq_keys import LEVELS, every_address

ADDRESS, PORT = "RABBITMQ_NODE_IP_ADDRESS", "RABBITMQ_NODE_PORT"
DEFAULT_PORT = "5672"
DATA, LOG, LOGS = "RABBITMQ_MNESIA_BASE", "RABBITMQ_LOG", "RABBITMQ_LOGS"
TO_STDOUT = "-"
ALONE, ERLANG, TERMS = "amqpd has no cluster", "amqpd does not run on Erlang", "it is a script of RabbitMQ's"
UNUSED = {
    "RABBITMQ_NODENAME": ALONE,
    "RABBITMQ_USE_LONGNAME": ALONE,
    "RABBITMQ_DIST_PORT": ALONE,
    "RABBITMQ_ERLANG_COOKIE": ALONE,
    "RABBITMQ_CONF_ENV_FILE": TERMS,
    "RABBITMQ_ENABLED_PLUGINS_FILE": "amqpd has no plugins",
    "RABBITMQ_PLUGINS_DIR": "amqpd has no plugins",
    "RABBITMQ_LOG_BASE": "the log goes to stderr",
    "RABBITMQ_MNESIA_DIR": "AMQPD_DATA_DIR sets the data directory",
    "RABBITMQ_QUORUM_DIR": "AMQPD_DATA_DIR sets the data directory",
    "RABBITMQ_STREAM_DIR": "AMQPD_DATA_DIR sets the data directory",
    "RABBITMQ_SERVER_ERL_ARGS": ERLANG,
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
    "RABBITMQ_SERVER_START_ARGS": ERLANG,
    "RABBITMQ_SCHEDULER_BIND_TYPE": ERLANG,
    "RABBITMQ_IO_THREAD_POOL_SIZE": ERLANG,
    "RABBITMQ_MAX_NUMBER_OF_PROCESSES": ERLANG,
    "RABBITMQ_MAX_NUMBER_OF_ATOMS": ERLANG,
}
TLS_OPTIONS = ("CACERTFILE", "CERTFILE", "DEPTH", "FAIL_IF_NO_PEER_CERT", "KEYFILE", "VERIFY")
UNUSED |= {f"RABBITMQ_SSL_{name}": "RabbitMQ's image does not take it either" for name in TLS_OPTIONS}
UNUSED |= {f"RABBITMQ_MANAGEMENT_SSL_{name}": "RabbitMQ's image does not take it either" for name in TLS_OPTIONS}


class NodeVariables(NamedTuple):
    """What such variables say: settings, each with its variable; warnings; and problems that stop a start."""

    values: tuple[tuple[str, str, Any], ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> NodeVariables:
        """Read the variables; an empty one counts as not set."""
        values, warnings, problems = list[tuple[str, str, Any]](), list[str](), list[str]()
        address, port = environ.get(ADDRESS, ""), environ.get(PORT, "")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
            problems.append(f"{PORT} is {port!r}, allowed is a whole number from 1 to 65535")
        elif address or port:
            hosts = [address] if address not in ("", "auto") else every_address()
            listeners = [f"[{host}]:{port or DEFAULT_PORT}" if ":" in host and not host.startswith("[")
                         else f"{host}:{port or DEFAULT_PORT}" for host in hosts]
            values.append((ADDRESS if address else PORT, "listeners", listeners))
        if directory := environ.get(DATA):
            values.append((DATA, "data_dir", directory))
            if not environ.get("AMQPD_DATA_DIR"):
                warnings.append(f"{DATA} is used as the data directory; set AMQPD_DATA_DIR, which amqpctl reads too")
        if words := environ.get(LOG):
            levels = [LEVELS[word] for word in words.replace(" ", "").split(",") if word in LEVELS]
            if levels:
                values.append((LOG, "log.level", levels[-1]))
            else:
                warnings.append(f"{LOG} has no effect: it names no level of the whole log")
        if environ.get(LOGS, TO_STDOUT) not in ("", TO_STDOUT):
            warnings.append(f"{LOGS} has no effect: the log goes to stderr")
        warnings += [f"{name} has no effect: {remark}" for name, remark in UNUSED.items() if environ.get(name)]
        return cls(tuple(values), tuple(warnings), tuple(problems))
