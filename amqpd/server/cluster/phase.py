"""The time in which a node stands by: from its start, or the end of another leader, until it may lead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from amqpd import __version__
from amqpd.config import Config
from amqpd.exit_codes import EXIT_IO
from amqpd.server import addresses
from amqpd.server.addresses import describe_address
from amqpd.server.binding import Binding
from amqpd.server.cluster.standby import Standby
from amqpd.server.signals import StopSignals
from amqpd.server.startup import StartError, node_name_of
from amqpd.store.errors import StoreError
from amqpd.store.port import Member, Membership

log = logging.getLogger("amqpd.cluster")

Announce = Callable[[str, list[tuple[str, int]]], None]


async def stand_by(config: Config, membership: Membership, signals: StopSignals, announce: Announce) -> bool:
    """Pass clients on while another node leads; return whether this one may lead, False if it is to stop.

    `announce` gets a line that tells that clients can connect, and their addresses. Raises StartError.
    """
    loop = asyncio.get_running_loop()
    try:
        if await asyncio.to_thread(_note_and_look, membership) is None:
            return True
        async with contextlib.AsyncExitStack() as undo:
            binding, name = Binding(undo, {}), node_name_of(config)
            standby = Standby(membership, config.cluster.secret.reveal().encode(), name)
            undo.push_async_callback(standby.close)
            found: list[str] = []
            heard: list[tuple[str, int]] = []
            for kind, listeners, is_tls in (("amqp", config.listeners, False), ("amqps", config.tls.listeners, True)):
                option = addresses.TLS_LISTEN_OPTION if is_tls else addresses.LISTEN_OPTION
                for _, sockets in await binding.bind(listeners, option):
                    standby.listen(sockets, is_tls=is_tls)
                    heard.append(sockets[0].getsockname()[:2])
                    found.append(f"{kind}={describe_address(heard[-1])}")
            for _, sockets in (await binding.bind_http(config.management, has_defaults=True)).api:
                standby.listen_http(sockets)
                found.append(f"http={describe_address(sockets[0].getsockname()[:2])}")

            def on_leader(leader: Member) -> None:
                announce(f"amqpd {__version__} ready {' '.join(found)} standby of {leader.name}", heard)

            signals.call_on_stop(lambda: loop.call_soon_threadsafe(standby.stop))
            is_free = await standby.wait_until_free(on_leader)
            signals.call_on_stop(None)
    except StoreError as error:
        raise StartError(str(error), EXIT_IO) from None
    if is_free:
        log.info("no node leads any more: this one tries to")
    return is_free


def _note_and_look(membership: Membership) -> Member | None:
    membership.note()
    return membership.leader()
