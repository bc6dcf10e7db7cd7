"""A link between two nodes: both prove that they know the secret, and the client is introduced."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

import pytest

from amqpd.server.cluster.link import MAGIC, PLAIN, TLS, LinkError, header_of, introduce, welcome
from amqpd.server.proxy_protocol import SIGNATURE, Claim, Header

SECRET = b"s" * 32
CLAIM = Claim(("10.1.2.3", 4567), ("10.0.0.1", 5672))


def pair() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends


def linked(theirs: bytes = SECRET, ours: bytes = SECRET, kind: bytes = PLAIN, claim: Claim = CLAIM) -> list[object]:
    """What both sides make of a link: what they return, or raise."""
    async def run() -> list[object]:
        member, leader = pair()
        with member, leader:
            async def member_side() -> None:
                try:
                    await introduce(member, theirs, kind, claim)
                except LinkError:
                    member.close()      # as a node does
                    raise

            async def leader_side() -> object:
                try:
                    return await welcome(leader, ours)
                except LinkError:
                    leader.close()
                    raise

            return list(await asyncio.gather(member_side(), leader_side(), return_exceptions=True))

    return asyncio.run(run())


@pytest.mark.parametrize("kind", [PLAIN, TLS])
@pytest.mark.parametrize("claim", [
    CLAIM, Claim(("2001:db8::1", 1), ("2001:db8::2", 65_535)), Claim(("::ffff:1.2.3.4", 1), ("::1", 2)),
    Claim(("fe80::1%eth0", 9), ("fe80::2", 10))])
def test_the_client_is_introduced(kind: bytes, claim: Claim) -> None:
    nothing, said = linked(kind=kind, claim=claim)
    assert nothing is None and isinstance(said, tuple)
    assert said[0] == kind and same(said[1], claim)


def same(one: Claim, other: Claim) -> bool:
    """Whether these are the same addresses; a zone is not passed on."""
    return [(ip_address(host.partition("%")[0]), port) for host, port in one] == [
        (ip_address(host.partition("%")[0]), port) for host, port in other]


def test_an_address_of_each_version_becomes_one_of_the_newer() -> None:
    header = Header()
    header.take(header_of(Claim(("1.2.3.4", 1), ("::1", 2))))
    assert header.claim is not None and same(header.claim, Claim(("::ffff:1.2.3.4", 1), ("::1", 2)))


def test_a_member_with_another_secret_is_refused_and_told_nothing() -> None:
    member, leader = linked(theirs=b"t" * 32)
    assert isinstance(member, LinkError) and "closed the link" in str(member)
    assert isinstance(leader, LinkError) and "does not know the secret" in str(leader)


def answered(*pieces: bytes) -> tuple[object, bytes]:
    """What the leading node makes of these pieces, and what it says after its greeting."""
    async def run() -> tuple[object, bytes]:
        member, leader = pair()
        with member, leader:
            task = asyncio.ensure_future(welcome(leader, SECRET))
            loop = asyncio.get_running_loop()
            await loop.sock_recv(member, len(MAGIC) + 32)
            for piece in pieces:
                await loop.sock_sendall(member, piece)
            member.shutdown(socket.SHUT_WR)
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            leader.close()
            try:
                return result, await loop.sock_recv(member, 1 << 16)
            except ConnectionResetError:        # it was closed with some of it unread
                return result, b""

    return asyncio.run(run())


@pytest.mark.parametrize("pieces", [
    [b""], [b"P"], [b"AMQP\x00\x00\x09\x01" * 20], [b"P" + b"\x00" * 64], [b"X" + b"\x00" * 64], [b"\x00" * 65]])
def test_whoever_knows_no_secret_hears_nothing_but_the_greeting(pieces: list[bytes]) -> None:
    result, said = answered(*pieces)
    assert isinstance(result, LinkError) and said == b""


def test_what_a_leader_says_has_to_be_a_leaders() -> None:
    async def run() -> object:
        member, leader = pair()
        with member, leader:
            task = asyncio.ensure_future(introduce(member, SECRET, PLAIN, CLAIM))
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(leader, MAGIC + b"n" * 32)
            told = await loop.sock_recv(leader, 1 << 16)
            await loop.sock_sendall(leader, told[-32:])     # its own proof, sent back
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            leader.setblocking(False)
            with pytest.raises(BlockingIOError):
                leader.recv(1)      # the client was not introduced
            return result

    assert "does not know the secret" in str(asyncio.run(run()))


def test_a_header_for_a_client_begins_as_proxies_begin_it() -> None:
    assert header_of(CLAIM).startswith(SIGNATURE + b"\x21\x11\x00\x0c\x0a\x01\x02\x03\x0a\x00\x00\x01")
