"""Spill files: transient messages on disk, unchanged, and no file is kept longer than needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import astuple
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from amqpd.message import Message, Route, pack_content
from amqpd.properties import read_properties
from amqpd.store.errors import StoreError
from amqpd.store.spill import DIRECTORY, Spill, SpillFile
from tests.support.samples import short_string


def sample(number: int, body: bytes, *, key: str = "kéy", priority: int | None = None, channel: int = 3) -> Message:
    header = ContentHeader(body_size=len(body), properties=Basic.Properties(priority=priority, headers={"a": number}))
    properties = header.marshal()[12:]
    route = Route("ex", key, short_string("ex") + short_string(key), channel, 4_096)
    content = pack_content(channel, 4_096, properties, body)
    return Message(number, route, read_properties(properties), content, len(body))


@pytest.fixture
def spill(tmp_path: Path) -> Spill:
    return Spill(tmp_path, read_properties)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / DIRECTORY).glob("*")) if (tmp_path / DIRECTORY).exists() else []


def test_what_was_written_comes_back_as_it_was(spill: Spill) -> None:
    run = [
        sample(7, b""), sample(9, b"x" * 10_000, priority=4), sample(1 << 60, b"\xce\x00", key=""),
        sample((1 << 60) + 1, b"y", channel=9)]
    back = spill.write(run).read()
    assert [(m.number, m.body_size, m.content) for m in back] == [(m.number, m.body_size, m.content) for m in run]
    assert [(m.facts.priority, m.facts.headers) for m in back] == [(m.facts.priority, m.facts.headers) for m in run]
    assert [astuple(m.route) for m in back] == [astuple(m.route) for m in run]


def test_a_file_goes_with_the_last_of_its_messages(spill: Spill, tmp_path: Path) -> None:
    spill_file = spill.write([sample(1, b"a"), sample(2, b"b")])
    spill_file.forget([1, 99])
    assert len(files(tmp_path)) == 1
    spill_file.forget([2])
    spill_file.forget([2])
    assert not files(tmp_path)


def test_a_file_that_was_cut_is_an_error_wherever_that_was(spill: Spill, tmp_path: Path) -> None:
    spill_file = spill.write([sample(1, b"body"), sample(2, b"body")])
    path, = files(tmp_path)
    whole = path.read_bytes()
    for size in range(len(whole)):      # between the two messages as well
        path.write_bytes(whole[:size])
        for use in (spill_file.read, lambda: spill.rewrite(spill_file)):
            with pytest.raises(StoreError, match="was cut while the broker ran: start it again"):
                use()
    assert files(tmp_path) == [path]
    path.write_bytes(whole)
    assert [m.number for m in spill_file.read()] == [1, 2]


def test_a_size_that_leads_beyond_the_file_is_an_error(spill: Spill, tmp_path: Path) -> None:
    spill_file = spill.write([sample(1, b"body"), sample(2, b"body")])
    path, = files(tmp_path)
    whole = path.read_bytes()
    for at in (0, len(whole) // 2):         # the size of the content ends a head of 24 bytes
        for added in (2, 1 << 20):
            size = int.from_bytes(whole[at + 20 : at + 24], "big") + added
            path.write_bytes(whole[: at + 20] + size.to_bytes(4, "big") + whole[at + 24 :])
            for use in (spill_file.read, lambda: spill.rewrite(spill_file)):
                with pytest.raises(StoreError, match="was changed while the broker ran: start it again"):
                    use()


def test_only_the_owner_can_read_a_spill_file(spill: Spill, tmp_path: Path) -> None:
    spill.write([sample(1, b"a")])
    assert files(tmp_path)[0].stat().st_mode & 0o777 == 0o600
    assert (tmp_path / DIRECTORY).stat().st_mode & 0o777 == 0o700


def test_what_an_earlier_run_left_is_dropped(spill: Spill, tmp_path: Path) -> None:
    spill.write([sample(1, b"a")])
    Spill(tmp_path, read_properties)
    assert not files(tmp_path)


def test_a_disk_that_is_full_leaves_no_half_spill_file(
    spill: Spill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(StoreError, match=r"cannot write .*1\.spill \(No space left on device\): free some space"):
        spill.write([sample(1, b"a")])
    assert not files(tmp_path)


def test_a_spill_file_that_is_gone_is_a_failure_with_a_name(spill: Spill, tmp_path: Path) -> None:
    spill_file = spill.write([sample(1, b"a")])
    files(tmp_path)[0].unlink()
    with pytest.raises(StoreError, match=r"cannot read .*1\.spill \(No such file"):
        spill_file.read()


def test_a_file_of_which_little_is_left_is_rewritten_with_that(spill: Spill, tmp_path: Path) -> None:
    sparse: list[SpillFile] = []
    spill.on_sparse = sparse.append
    run = [sample(number, bytes(1_000)) for number in range(1, 101)]
    spill_file = spill.write(run)
    spill_file.forget(range(1, 75))
    assert not sparse, "a quarter is more than is left"
    spill_file.forget(range(75, 91))
    spill_file.forget([91])
    assert sparse == [spill_file], "once"
    before = files(tmp_path)[0].stat().st_size
    path, size = spill.rewrite(spill_file)
    spill_file.forget([92])
    spill_file.move_to(path, size)
    assert files(tmp_path) == [path] and path.stat().st_size == size < before / 9
    assert [(one.number, one.content) for one in spill_file.read()] == [(one.number, one.content) for one in run[91:]]
    spill_file.forget(range(93, 101))
    assert not files(tmp_path) and not spill_file.has_messages


def test_a_spill_file_that_goes_while_it_is_rewritten_leaves_no_file(spill: Spill, tmp_path: Path) -> None:
    spill_file = spill.write([sample(1, b"a"), sample(2, b"b")])
    path, size = spill.rewrite(spill_file)
    spill_file.forget([1, 2])
    spill_file.move_to(path, size)
    assert not files(tmp_path)
    with pytest.raises(StoreError, match=r"cannot read .*1\.spill \(No such file"):
        spill.rewrite(spill_file)


def test_a_small_file_is_not_worth_it(spill: Spill) -> None:
    sparse: list[SpillFile] = []
    spill.on_sparse = sparse.append
    spill.write([sample(number, b"") for number in range(1, 101)]).forget(range(2, 101))
    assert not sparse
