"""The header of the PROXY protocol, cut anywhere, with something behind it.

An input is the number of cuts, the cuts, and what a proxy sends.
"""

from __future__ import annotations

import ipaddress

from amqpd.server.proxy_protocol import SIGNATURE, Claim, Header, ProxyError
from tests.fuzz.targets.target import Target, pieces_of


def read(pieces: list[bytes]) -> tuple[str, int, Claim | None]:
    """Return what comes of these pieces: an error, the size of the header, the claim. A size of -1 is a cut header."""
    header, size = Header(), 0
    for piece in pieces:
        try:
            taken = header.take(piece)
        except ProxyError as error:
            return str(error), 0, None
        assert 0 <= taken <= len(piece)
        size += taken
        if header.is_complete:
            return "", size, header.claim
        assert taken == len(piece)
    return "", -1, None


def run(data: bytes) -> None:
    """Read a header whole and in pieces."""
    count = data[0] % 8 if data else 0
    cuts, sent = data[1:1 + count], data[1 + count:]
    error, size, claim = found = read([sent] if sent else [])
    in_pieces = read(pieces_of(sent, cuts))
    # Of a wrong header that is cut, more or less may be there when it is refused.
    assert (found == in_pieces) if not error else in_pieces[0], f"{found} as a whole, {in_pieces} in pieces"
    if claim is not None:
        for address, port in claim:
            assert str(ipaddress.ip_address(address)) == address and 0 <= port <= 65_535


def seeds() -> list[bytes]:
    """Return headers of both versions and of all families."""
    fixed = SIGNATURE + b"\x21"
    of_2 = [fixed + family + len(rest).to_bytes(2, "big") + rest for family, rest in (
        (b"\x11", bytes(12)), (b"\x21", bytes(36)), (b"\x11", bytes(12) + b"\x04\0\x01x"), (b"\x12", bytes(12)),
        (b"\x31", bytes(216)), (b"\x00", b""))]
    sent = [b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 5672\r\nAMQP\0\0\x09\x01",
            b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 65535 0\r\n", b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN x y\r\nAMQP",
            b"AMQP\0\0\x09\x01", SIGNATURE + b"\x20\0\0\0", *of_2, of_2[0] + b"AMQP"]
    return [cuts + one for one in sent for cuts in (b"\0", b"\x01\x01", b"\x02\x0c\x04")]


TARGET = Target(
    run, seeds, [SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b" ", b"192.0.2.1", b"::1", b"%1",
                 b"::ffff:", b"65536", b"\x21\x11\0\x0c"], longest=700, lengths=(2,), share=25)
