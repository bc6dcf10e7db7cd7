"""What a node of a cluster needs to be told, and whether it was."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from amqpd.config import Config
from amqpd.exit_codes import EXIT_CONFIG
from amqpd.server.addresses import describe_address
from amqpd.server.cluster.link import SHORTEST_SECRET
from amqpd.server.startup import StartError


def check_cluster(config: Config) -> None:
    """Check that nodes find each other, and that nobody else gets in. Raises StartError."""
    if not config.store.reveal():
        raise StartError(
            "cluster.listeners is set, but store is not: nodes share a store in PostgreSQL, so give its URL with "
            "--store", EXIT_CONFIG)
    secret = config.cluster.secret.reveal()
    if secret and len(secret.encode()) < SHORTEST_SECRET:
        raise StartError(
            f"cluster.secret has {len(secret.encode())} octets, and at least {SHORTEST_SECRET} are needed: make one "
            "with 'openssl rand -hex 32'", EXIT_CONFIG)
    if not secret and any(one.is_open for one in config.cluster.listeners):
        raise StartError(
            f"cluster.listeners has {config.cluster.listeners[0]}, which other machines can reach, but there is no "
            "cluster.secret: set the same one on all nodes, made with 'openssl rand -hex 32'", EXIT_CONFIG)


def reached_at(config: Config, sockets: Sequence[socket.socket]) -> str:
    """Return the address at which other nodes reach these bound sockets. Raises StartError."""
    if config.cluster.address:
        return config.cluster.address
    host, port = sockets[0].getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        raise StartError(
            f"cluster.listeners has {config.cluster.listeners[0]}, to which nobody can connect: set cluster.address to "
            f"the name of this machine, such as '{socket.gethostname()}:{port}'", EXIT_CONFIG)
    return describe_address((host, port))
