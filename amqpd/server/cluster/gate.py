"""The leading node's door for other nodes: each link becomes a client of its own, with the client's real address."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

from amqpd.server.acceptor import Acceptor
from amqpd.server.cluster.link import TLS, LinkError, welcome
from amqpd.server.proxy_protocol import Claim
from amqpd.server.sparing_log import SparingLog

MOST_OPENING = 256          # links whose node has not proved yet that it belongs to the cluster; further ones wait

log = logging.getLogger("amqpd.cluster")

TakeIn = Callable[[socket.socket, Claim, bool], None]


class Gate:
    """Accepts links. `take_in` gets the socket, the addresses of the client, and whether it came to a TLS listener."""

    def __init__(self, secret: bytes, take_in: TakeIn, loop: asyncio.AbstractEventLoop) -> None:
        self._secret = secret
        self._take_in = take_in
        self._loop = loop
        self._opening: set[asyncio.Task[None]] = set()
        self._acceptor = Acceptor(loop, self._has_room, self._has_room, self._arrive)
        self._sparing_log = SparingLog(log)

    def listen(self, sockets: Iterable[socket.socket]) -> None:
        """Accept links at these bound sockets. Raises OSError."""
        self._acceptor.listen(sockets)

    def stop(self) -> None:
        """Accept no more links."""
        self._acceptor.stop()
        for task in self._opening:
            task.cancel()

    def _has_room(self) -> bool:
        return len(self._opening) < MOST_OPENING

    def _arrive(self, link: socket.socket, peer: tuple[str, int]) -> None:
        task = self._loop.create_task(self._open(link, peer))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, link: socket.socket, peer: tuple[str, int]) -> None:
        is_taken = False
        try:
            kind, claim = await welcome(link, self._secret)
            if claim is not None:
                is_taken = True
                self._take_in(link, claim, kind == TLS)
        except TimeoutError:
            self._sparing_log.warning("%s:%d: closing: it did not say in time which node it is", *peer[:2])
        except LinkError as error:
            self._sparing_log.warning("%s:%d: closing: %s", *peer[:2], error)
        except OSError:
            pass        # it has gone again
        finally:
            if not is_taken:
                with suppress(OSError):
                    link.close()
