"""One client: it chooses its next method by the grammar, and keeps what it needs of the answers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from conformance import methods
from conformance.client import PROTOCOL_HEADER, amqplain_response, frame, method_frame, plain_response
from conformance.fields import bits, pack
from tests.fuzz import values
from tests.fuzz.values import QUEUE_ARGUMENTS, QUEUES, Dice
from tests.support.scram_client import ScramClient

CAPABILITIES = {
    "basic.nack": True, "connection.blocked": True, "consumer_cancel_notify": True,
    "authentication_failure_close": True}
MECHANISMS = ["PLAIN", "PLAIN", "PLAIN", "AMQPLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256", "EXTERNAL", "ANONYMOUS"]
KINDS = {"x0": "direct", "x1": "fanout", "x2": "topic", "x3": "headers"}
DURABLE = {"q0", "q2", "q3", "q5", "x0", "x2"}
BINDING_ARGUMENTS: list[dict[str, Any]] = [
    {}, {}, {"x-match": "any", "a": 1}, {"x-match": "all", "a": None}, {"x-match": "all-with-x", "x-a": "text"},
    {"a": "text"}]

Saying = tuple[tuple[int, int], bytes] | bytes


class Talker:
    """The next methods of one client, and its knowledge of its channels and deliveries."""

    def __init__(self, dice: Dice, user: str, password: str, vhost: str) -> None:
        self._dice = dice
        self._login = user, password, vhost
        self.is_closed = False                      # the broker has closed the connection
        self._channels: dict[int, list[int]] = {}   # open ones, with the deliveries that are unanswered
        self._to_answer: list[int] = []             # channels that the broker has closed
        self._transactional: set[int] = set()
        self._scram: ScramClient | None = None      # of a login that goes on
        self._challenge: bytes | None = None        # that is to be answered
        self._after_login = b""                     # the rest of the handshake, while a login goes on

    # Hearing

    def hear(self, channel: int, ids: tuple[int, int], arguments: bytes) -> None:
        """Keep what a method means for what can be said next."""
        if ids == methods.CONNECTION_CLOSE:
            self.is_closed = True
        elif ids == methods.CONNECTION_SECURE:
            self._challenge = arguments[4:]
        elif ids == methods.CONNECTION_TUNE:
            self._scram = None
        elif ids == methods.CHANNEL_CLOSE:
            self._channels.pop(channel, None)
            self._to_answer.append(channel)
        elif channel in self._channels and ids == methods.BASIC_DELIVER:
            self._channels[channel].append(struct.unpack_from(">Q", arguments, 1 + arguments[0])[0])
        elif channel in self._channels and ids == methods.BASIC_GET_OK:
            self._channels[channel].append(struct.unpack_from(">Q", arguments)[0])

    # Saying

    def hello(self) -> bytes:
        """The handshake in one go, a few channels, and often all queues and exchanges."""
        dice = self._dice
        self.is_closed = False
        self._channels.clear()
        self._to_answer.clear()
        self._scram, self._challenge, self._after_login = None, None, b""
        octets = dice.choice([b"GET / HTTP/1.1\r\n\r\n", b"AMQP\0\0\x09"]) if dice.oddly(0.02) else PROTOCOL_HEADER
        octets += self._log_in()
        rest = self._open()
        if self._scram is not None:
            self._after_login, rest = rest, b""     # it cannot be said before the challenge has been answered
        return octets + rest

    def _log_in(self) -> bytes:
        """start-ok with one of the mechanisms."""
        dice = self._dice
        user, password, _ = self._login
        if dice.oddly(0.03):
            password = dice.choice(["", "wrong", "\0"])
        mechanism = dice.choice(MECHANISMS)
        if mechanism == "SCRAM-SHA-256":
            self._scram = ScramClient(user, password, header=dice.choice(["n,,", "y,,"]))
        responses = {
            "PLAIN": plain_response(user, password), "AMQPLAIN": amqplain_response(user, password), "EXTERNAL": b"",
            "ANONYMOUS": b"trace", "SCRAM-SHA-256": self._scram.first.encode() if self._scram is not None else b""}
        response = responses[mechanism]
        if dice.oddly(0.05):
            response = dice.choice([mutated(dice, response), *responses.values(), dice.randbytes(dice.randrange(40))])
        name = dice.choice(["", "plain", "NOPE", *MECHANISMS]) if dice.oddly(0.02) else mechanism
        properties = {"product": "fuzz", "capabilities": CAPABILITIES}
        return method_frame(0, *methods.CONNECTION_START_OK, pack("TsLs", properties, name, response, "en_US"))

    def _go_on_with_login(self, scram: ScramClient) -> bytes:
        """secure-ok if there is a challenge, else nothing, or something out of turn."""
        dice = self._dice
        challenge, self._challenge = self._challenge, None
        if challenge is None and not dice.oddly(0.1):
            return b""
        answer = b""
        if challenge is not None and challenge.startswith(b"r="):
            answer = scram.answer(challenge.decode()).encode()
        if dice.oddly(0.05):
            answer = dice.choice([mutated(dice, answer), scram.first.encode(), b"", dice.randbytes(dice.randrange(40))])
        return method_frame(0, *methods.CONNECTION_SECURE_OK, pack("L", answer))

    def _open(self) -> bytes:
        """The rest of the handshake."""
        dice, vhost = self._dice, self._login[2]
        octets = b""
        frame_max = values.number(dice, 4) if dice.oddly(0.03) else dice.choice([4_096, 131_072])
        heartbeat = dice.choice([0, 0, 1, 60, 65_535])
        octets += method_frame(0, *methods.CONNECTION_TUNE_OK, pack("242", 2_047, frame_max, heartbeat))
        octets += method_frame(0, *methods.CONNECTION_OPEN, pack("sso", vhost, "", 0))
        octets += b"".join(self.open_channel() for _ in range(dice.choice([1, 2, 3])))
        return octets + (self.furnish() if dice.often(0.8) else b"")

    def furnish(self) -> bytes:
        """Declare everything as it usually is."""
        channel = self.channel()
        octets = b""
        for name in QUEUES:
            flags = bits(False, name in DURABLE, False, False, True)
            octets += method_frame(channel, *methods.QUEUE_DECLARE, pack("2soT", 0, name, flags, QUEUE_ARGUMENTS[name]))
        for name, kind in KINDS.items():
            flags = bits(False, name in DURABLE, False, False, True)
            octets += method_frame(channel, *methods.EXCHANGE_DECLARE, pack("2ssoT", 0, name, kind, flags, {}))
        for _ in range(6):
            octets += method_frame(channel, *methods.QUEUE_BIND, pack(
                "2sssoT", 0, self._dice.choice(QUEUES), self._dice.choice([*KINDS, "amq.fanout", "amq.topic"]),
                self._dice.choice(values.PATTERNS), 1, self._dice.choice(BINDING_ARGUMENTS)))
        return octets

    def open_channel(self) -> bytes:
        """channel.open, and often a mode."""
        dice = self._dice
        free = [number for number in (1, 2, 3, 4, 2_047) if number not in self._channels]
        if not free:
            return b""
        number = dice.choice([0, 1, 2_048, 65_535]) if dice.oddly(0.02) else dice.choice(free)
        self._channels[number] = []
        self._transactional.discard(number)
        octets = method_frame(number, *methods.CHANNEL_OPEN, b"\0")
        mode = dice.choice([b"", b"", methods.CONFIRM_SELECT, methods.TX_SELECT])
        if mode == methods.TX_SELECT:
            self._transactional.add(number)
        if isinstance(mode, tuple):
            octets += method_frame(number, *mode, b"\0" if mode == methods.CONFIRM_SELECT else b"")
        return octets

    def channel(self) -> int:
        """A channel that is open, as far as it knows."""
        if not self._channels or self._dice.oddly(0.01):
            return values.number(self._dice, 2)
        return self._dice.choice(list(self._channels))

    def tag(self, channel: int) -> int:
        """The tag of a delivery that is unanswered, if there is one."""
        tags = self._channels.get(channel)
        if self._dice.oddly(0.05):
            return values.number(self._dice, 8)
        return self._dice.choice(tags) if tags else 0

    def words(self) -> bytes:
        """Return the next method, with its content if it has one; an answer that is due comes first."""
        if self._scram is not None:
            return self._go_on_with_login(self._scram)
        if self._after_login:
            rest, self._after_login = self._after_login, b""
            return rest
        octets = b"".join(method_frame(channel, *methods.CHANNEL_CLOSE_OK) for channel in self._to_answer)
        self._to_answer.clear()
        if not self._channels:
            octets += self.open_channel()
        channel = self.channel()
        said = self._dice.choices(SAYINGS, WEIGHTS)[0](self, channel, self._dice)
        if isinstance(said, bytes):
            return octets + said
        ids, arguments = said
        octets += method_frame(channel, *ids, arguments)
        return octets + self.content(channel) if ids == methods.BASIC_PUBLISH else octets

    def content(self, channel: int) -> bytes:
        """Header and body, seldom as they should not be."""
        dice = self._dice
        body = b"b" * dice.choice([0, 1, 10, 10, 100, 300, 5_000])
        size, class_id, weight = len(body), 60, 0
        if dice.oddly(0.02):
            size, class_id, weight = dice.choice([
                (size + 1, 60, 0), (max(size - 1, 0), 60, 0), (size, 50, 0), (size, 60, 1), (2 ** 63, 60, 0),
                (2 ** 64 - 1, 60, 0), (100_000_000, 60, 0)])
        octets = frame(2, channel, struct.pack(">HHQ", class_id, weight, size) + values.properties(dice))
        step = dice.choice([1, 7, 4_088, 4_088, 4_088]) if len(body) < 500 else 4_088
        for at in range(0, len(body), step):
            octets += frame(3, channel, body[at:at + step])
            if dice.oddly(0.01):
                octets += frame(3, channel, b"")
        return octets

    def settle(self, channel: int, ids: tuple[int, int], flags: int) -> Saying:
        """An answer to deliveries."""
        tag = self.tag(channel)
        tags = self._channels.get(channel, [])
        if not tag and not self._dice.oddly(0.2):
            return methods.BASIC_GET, pack("2so", 0, self._dice.choice(QUEUES), 0)
        flag = self._dice.randrange(1 << flags)
        is_multiple = flag & 1 and ids != methods.BASIC_REJECT
        if channel in self._channels:
            self._channels[channel] = [other for other in tags if other != tag and (other > tag or not is_multiple)]
        return ids, pack("8o", tag, flag)

    def end_transaction(self, channel: int, ids: tuple[int, int]) -> Saying:
        """tx.commit or tx.rollback, on a channel that has a transaction if there is one."""
        channels = [number for number in self._channels if number in self._transactional]
        if self._dice.oddly(0.1) or not channels:
            return (ids, b"") if self._dice.oddly(0.1) else b""
        return method_frame(self._dice.choice(channels), *ids)

    def close_channel(self, channel: int) -> Saying:
        """channel.close."""
        self._channels.pop(channel, None)
        return methods.CHANNEL_CLOSE, pack("2s22", 200, "bye", 0, 0)


def _queue_declare(talker: Talker, channel: int, dice: Dice) -> Saying:
    name = values.queue(dice)
    flags = bits(dice.oddly(0.05), (name in DURABLE) != dice.oddly(0.02), dice.oddly(0.03), dice.oddly(0.05),
                 dice.often(0.3))
    usual = QUEUE_ARGUMENTS.get(str(name), {})
    return methods.QUEUE_DECLARE, pack("2so", 0, name, flags) + values.arguments(dice, usual)


def _exchange_declare(talker: Talker, channel: int, dice: Dice) -> Saying:
    name = dice.choice(list(KINDS)) if not dice.oddly(0.05) else values.exchange(dice)
    kind = dice.choice([*KINDS.values(), "x-odd", ""]) if dice.oddly(0.05) else KINDS.get(str(name), "topic")
    flags = bits(dice.oddly(0.05), (name in DURABLE) != dice.oddly(0.05), dice.oddly(0.05), dice.oddly(0.05),
                 dice.often(0.3))
    return methods.EXCHANGE_DECLARE, pack("2sso", 0, name, kind, flags) + values.arguments(
        dice, {"alternate-exchange": "amq.fanout"} if dice.oddly(0.1) else {})


def _end_transaction(ids: tuple[int, int]) -> Callable[..., Saying]:
    return lambda talker, channel, dice: talker.end_transaction(channel, ids)


def _binding(ids: tuple[int, int], target: Callable[[Dice], str | bytes], has_nowait: bool) -> Callable[..., Saying]:
    def say(talker: Talker, channel: int, dice: Dice) -> Saying:
        source = values.exchange(dice)
        if not source and not dice.oddly(0.1):
            source = "x1"
        nowait = pack("o", dice.often(0.3)) if has_nowait else b""
        arguments = values.arguments(dice, dice.choice(BINDING_ARGUMENTS))
        return ids, pack("2sss", 0, target(dice) or "x2", source, values.key(dice)) + nowait + arguments
    return say


def _consume(talker: Talker, channel: int, dice: Dice) -> Saying:
    queue = "amq.rabbitmq.reply-to" if dice.oddly(0.05) else values.queue(dice)
    flags = bits(dice.oddly(0.05), dice.often(0.3), dice.oddly(0.05), dice.often(0.3))
    tag = dice.choice(values.TAGS) if dice.oddly(0.2) else ""
    arguments = values.arguments(dice, {"x-priority": 1} if dice.often(0.2) else {})
    return methods.BASIC_CONSUME, pack("2sso", 0, queue, tag, flags & ~8 if not tag else flags) + arguments


def _publish(talker: Talker, channel: int, dice: Dice) -> Saying:
    flags = bits(dice.often(0.2), dice.oddly(0.01))
    if dice.often(0.5):
        return methods.BASIC_PUBLISH, pack("2sso", 0, "", dice.choice(QUEUES), flags)
    return methods.BASIC_PUBLISH, pack("2sso", 0, values.exchange(dice), values.key(dice), flags)


def _settle(ids: tuple[int, int], flags: int) -> Callable[..., Saying]:
    return lambda talker, channel, dice: talker.settle(channel, ids, flags)


def _plain(ids: tuple[int, int], arguments: bytes = b"") -> Callable[..., Saying]:
    return lambda talker, channel, dice: (ids, arguments)


def _about_queue(ids: tuple[int, int], flags: int) -> Callable[..., Saying]:
    return lambda talker, channel, dice: (ids, pack("2so", 0, values.queue(dice), dice.randrange(flags)))


def _noise(talker: Talker, channel: int, dice: Dice) -> Saying:
    """A heartbeat; in wild sessions a method with any arguments, a method that is none, or a frame of another kind."""
    if not dice.oddly(0.5):
        return b"\x08\0\0\0\0\0\0\xce"
    some = dice.randbytes(dice.randrange(30))
    return dice.choice([
        (dice.choice(list(methods.NAMES)), some), ((dice.choice([0, 10, 60, 61, 65_535]), dice.randrange(200)), some),
        frame(dice.choice([0, 2, 3, 4, 8, 255]), channel, some)])


# How often, and what is said.
TABLE: list[tuple[int, Callable[[Talker, int, Dice], Saying]]] = [
    (9, _queue_declare),
    (5, _exchange_declare),
    (8, _binding(methods.QUEUE_BIND, values.queue, True)),
    (2, _binding(methods.QUEUE_UNBIND, values.queue, False)),
    (4, _binding(methods.EXCHANGE_BIND, values.exchange, True)),
    (1, _binding(methods.EXCHANGE_UNBIND, values.exchange, True)),
    (1, _about_queue(methods.QUEUE_DELETE, 8)),
    (1, _about_queue(methods.QUEUE_PURGE, 2)),
    (1, lambda talker, channel, dice: (methods.EXCHANGE_DELETE, pack(
        "2so", 0, dice.choice(list(KINDS)), dice.randrange(4)))),
    (10, _consume),
    (3, lambda talker, channel, dice: (methods.BASIC_CANCEL, pack(
        "so", dice.choice(values.TAGS), dice.randrange(2)))),
    (45, _publish),
    (12, _about_queue(methods.BASIC_GET, 2)),
    (10, _settle(methods.BASIC_ACK, 1)),
    (8, _settle(methods.BASIC_NACK, 2)),
    (4, _settle(methods.BASIC_REJECT, 1)),
    (1, _plain(methods.BASIC_RECOVER, b"\x01")),
    (1, _plain(methods.BASIC_RECOVER_ASYNC, b"\x01")),
    (4, lambda talker, channel, dice: (methods.BASIC_QOS, pack(
        "42o", 0, dice.choice([0, 1, 2, 65_535]), dice.randrange(2)))),
    (6, _end_transaction(methods.TX_COMMIT)),
    (4, _end_transaction(methods.TX_ROLLBACK)),
    (4, lambda talker, channel, dice: talker.open_channel()),
    (2, lambda talker, channel, dice: talker.close_channel(channel)),
    (1, _plain(methods.CHANNEL_FLOW, b"\x01")),
    (2, _noise),
]
SAYINGS = [saying for _, saying in TABLE]
WEIGHTS = [weight for weight, _ in TABLE]


def mutated(dice: Dice, octets: bytes) -> bytes:
    """What was to be said, with something changed, left out, doubled or put in."""
    if not octets:
        return octets
    at = dice.randrange(len(octets))
    to = min(len(octets), at + dice.choice([1, 4, 8, 50]))
    return dice.choice([
        octets[:at] + bytes([octets[at] ^ 1 << dice.randrange(8)]) + octets[at + 1:],
        octets[:at] + octets[to:],
        octets[:to] + octets[at:],
        octets[:at] + dice.randbytes(dice.choice([1, 4, 20])) + octets[at:],
        octets[:at]])
