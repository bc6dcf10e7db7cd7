"""The deferral of records until all of them join one batch: one job at a time has it."""

from __future__ import annotations

import pytest

from amqpd.broker.deferral import Deferral, NoDeferral


def test_one_job_at_a_time_defers_its_records() -> None:
    joined: list[str] = []
    deferral = Deferral(lambda: joined.append("joined"))
    assert deferral.begin() and deferral.is_open and not deferral.begin()
    assert joined == []
    deferral.end()
    assert joined == ["joined"] and not deferral.is_open and deferral.begin()


def test_only_what_the_job_does_itself_is_deferred() -> None:
    deferral = Deferral()
    deferral.begin()
    assert not deferral.is_on
    with pytest.raises(RuntimeError), deferral.on():
        assert deferral.is_on
        raise RuntimeError
    assert not deferral.is_on and deferral.is_open


def test_a_job_that_comes_too_late_is_called_once_at_the_end() -> None:
    deferral, calls = Deferral(), []
    deferral.begin()
    deferral.call(lambda: calls.append(deferral.begin()))
    deferral.end()
    assert calls == [True]
    deferral.end()
    assert calls == [True]


def test_where_nothing_is_written_nobody_waits() -> None:
    deferral = NoDeferral()
    assert deferral.begin() and deferral.begin()
    deferral.end()
    assert not deferral.is_open
