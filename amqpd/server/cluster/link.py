"""How two nodes open a link for one client: both prove that they know the secret, then the client is introduced.

The node that is reached sends MAGIC and 32 random octets. The other one answers with a letter for the kind of listener
that the client came to, 32 random octets, and a HMAC-SHA256 over all of this; the first one answers with one as well.
Then comes a PROXY header of version 2 with the client's address, and after that what the client sends, and gets.
Without a secret the key is empty, which only links on loopback may have. Nothing of the client is read before its
node has proved that it belongs to the cluster; each step has to come within a few seconds.

RFC 2104 (HMAC); haproxy.org/download/1.8/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import struct

from amqpd.server.proxy_protocol import FIXED_2, SIGNATURE, TCP_4, TCP_6, Claim, Header, ProxyError

MAGIC = b"amqpd-cluster 1\n"
NONCE, PROOF = 32, 32
STEP_S = 5.0
PLAIN, TLS = b"P", b"T"
SHORTEST_SECRET = 32        # octets


class LinkError(Exception):
    """The other side is no node of this cluster, or does not speak in time; the text says why."""


async def introduce(link: socket.socket, secret: bytes, kind: bytes, claim: Claim) -> None:
    """Open a link that was connected to the leading node, for this client. Raises LinkError, OSError."""
    loop = asyncio.get_running_loop()
    async with _in_time():
        greeting = await receive(link, len(MAGIC) + NONCE)
        if not greeting.startswith(MAGIC):
            raise LinkError("it is no node of amqpd, or of another version")
        nonce = os.urandom(NONCE)
        await loop.sock_sendall(link, kind + nonce + _proof(secret, b"member", greeting, kind + nonce))
        if not hmac.compare_digest(await receive(link, PROOF), _proof(secret, b"leader", greeting, kind + nonce)):
            raise LinkError("it does not know the secret (cluster.secret)")
        await loop.sock_sendall(link, header_of(claim))


async def welcome(link: socket.socket, secret: bytes) -> tuple[bytes, Claim | None]:
    """Return the kind of listener and the client of a link that another node has opened. Raises LinkError, OSError."""
    loop = asyncio.get_running_loop()
    async with _in_time():
        greeting = MAGIC + os.urandom(NONCE)
        await loop.sock_sendall(link, greeting)
        answer = await receive(link, 1 + NONCE + PROOF)
        said, proof = answer[:-PROOF], answer[-PROOF:]
        if said[:1] not in (PLAIN, TLS) or not hmac.compare_digest(proof, _proof(secret, b"member", greeting, said)):
            raise LinkError("it does not know the secret (cluster.secret)")
        await loop.sock_sendall(link, _proof(secret, b"leader", greeting, said))
        fixed = await receive(link, FIXED_2)
        header = Header()
        try:
            header.take(fixed + await receive(link, int.from_bytes(fixed[14:], "big") & 0x1FF))
        except ProxyError as error:
            raise LinkError(f"PROXY header: {error}") from None
        if not header.is_complete:
            raise LinkError("PROXY header: it is malformed")
        return said[:1], header.claim


def _in_time() -> asyncio.Timeout:
    return asyncio.timeout(STEP_S)


def _proof(secret: bytes, role: bytes, greeting: bytes, said: bytes) -> bytes:
    return hmac.digest(secret, role + greeting + said, "sha256")


async def receive(link: socket.socket, size: int) -> bytes:
    """Return exactly so many octets; what follows stays in the socket. Raises LinkError, OSError."""
    loop = asyncio.get_running_loop()
    found = b""
    while len(found) < size:
        piece = await loop.sock_recv(link, size - len(found))
        if not piece:
            raise LinkError("it has closed the link")
        found += piece
    return found


def header_of(claim: Claim) -> bytes:
    """Return the PROXY header of version 2 for a client."""
    family, kind, size = (socket.AF_INET6, TCP_6, 16) if ":" in claim.peer[0] + claim.host[0] else (
        socket.AF_INET, TCP_4, 4)
    hosts = [_mapped(host, family) for host, _ in claim]
    addresses = b"".join([socket.inet_pton(family, host) for host in hosts])
    rest = addresses + struct.pack(">HH", claim.peer[1], claim.host[1])
    assert len(addresses) == 2 * size
    return SIGNATURE + bytes((0x21, kind)) + struct.pack(">H", len(rest)) + rest


def _mapped(host: str, family: int) -> str:
    """Return an address without its zone, and as one of IPv6 where the other one is."""
    plain = host.partition("%")[0]
    return f"::ffff:{plain}" if family == socket.AF_INET6 and ":" not in plain else plain
