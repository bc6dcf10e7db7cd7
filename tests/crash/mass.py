"""A client for very many messages of one size: it publishes and receives them in blocks, and checks each of them.

The body of a message begins with its number, so that a missing, duplicated or misplaced message is detected. The other
client's parser reads methods; what arrives a million times is cut at equal lengths.
"""

from __future__ import annotations

import struct
import time

from pamqp import frame
from pamqp.commands import Basic

from tests.crash.crash_client import CHANNEL, FRAME_OVERHEAD, Client, pack_content

BLOCK = 250             # publishes in one write
WINDOW = 5_000          # publishes without a confirm
PREFETCH, ACK_EVERY = 2_000, 500
PATIENCE_S = 30
NUMBER = struct.Struct(">Q")


class MassClient(Client):
    """Persistent messages of `size` octets, numbered from 0 in each queue."""

    def __init__(self, port: int, size: int) -> None:
        super().__init__(port, timeout_s=60.0)
        self._size = size
        self._confirmed = self._sent = 0

    def pour(self, queue: str, first: int, last: int) -> float:
        """Publish those numbered from `first` up to before `last`, and wait for the confirms; seconds it took."""
        begun = time.monotonic()
        head = frame.marshal(Basic.Publish(0, "", queue), CHANNEL)
        rest = bytes(self._size - NUMBER.size)
        empty, _ = pack_content(Basic.Properties(delivery_mode=2), NUMBER.pack(0) + rest)
        before, after = head + empty[: -len(rest) - NUMBER.size - 1], rest + empty[-1:]
        for start in range(first, last, BLOCK):
            numbers = range(start, min(start + BLOCK, last))
            self._write(b"".join([before + NUMBER.pack(number) + after for number in numbers]))
            self._sent += len(numbers)
            self._wait_for_confirms(self._sent - WINDOW)
        self._wait_for_confirms(self._sent)
        return time.monotonic() - begun

    def _wait_for_confirms(self, wanted: int) -> None:
        while self._confirmed < wanted:
            method = self._expect("Basic.Ack").method
            assert method.multiple or method.delivery_tag == self._confirmed + 1
            self._confirmed = method.delivery_tag

    def drain(self, queue: str, amount: int) -> float:
        """Consume so many and ack them; AssertionError unless they are 0, 1, 2 and so on; seconds it took."""
        self.call(Basic.Qos(prefetch_count=PREFETCH))
        begun = time.monotonic()
        self.send(Basic.Consume(0, queue, "t"))
        self._expect("Basic.ConsumeOk")
        assert not self._arrived, "a delivery came before it was asked for"
        size = self._one_delivery(time.monotonic() + PATIENCE_S)
        cut = struct.Struct(f">{size - self._size - 1}xQ{self._size - NUMBER.size + 1}x")
        taken = acked = 0
        while taken < amount:
            self._fill(size, time.monotonic() + PATIENCE_S)
            whole = len(self._received) // size
            numbers = [number for number, in cut.iter_unpack(memoryview(self._received)[: whole * size])]
            assert numbers == [*range(taken, taken + whole)], f"out of order, lost or doubled after number {taken - 1}"
            del self._received[: whole * size]
            taken += whole
            while taken - acked >= ACK_EVERY or taken == amount and acked < taken:
                acked = min(acked + ACK_EVERY, taken)
                self.send(Basic.Ack(acked, True))
        return time.monotonic() - begun

    def _one_delivery(self, deadline: float) -> int:
        """How many octets the first delivery takes with its content, which stays unread."""
        end = 0
        for _ in range(3):      # method, header and one body
            self._fill(end + 7, deadline)
            end += FRAME_OVERHEAD + struct.unpack_from(">I", self._received, end + 3)[0]
        self._fill(end, deadline)
        return end
