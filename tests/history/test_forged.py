"""Forged histories: the checker reports the one line that each breaks, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.history import LINES, forged_messages, forged_rest, judge
from tests.history.__main__ import main
from tests.history.events import History
from tests.history.forgery import FORGERIES, Forgery
from tests.history.story import Story


def test_every_line_has_a_forgery() -> None:
    assert {forgery.__module__ for _, forgery in FORGERIES} == {forged_messages.__name__, forged_rest.__name__}
    assert {line for line, _ in FORGERIES} == set(LINES) == set(range(1, 32))


@pytest.mark.parametrize(("line", "forgery"), FORGERIES, ids=[forgery.__name__ for _, forgery in FORGERIES])
def test_a_forged_history_is_named_by_its_line(line: int, forgery: Forgery) -> None:
    story = Story()
    forgery(story)
    assert {finding.line for finding in judge(story.events)} == {line}


def test_a_confirm_of_what_was_acked_everywhere_does_not_make_other_acks_hold() -> None:
    """It may have come before anything was on disk."""
    story = Story()
    forged_messages.an_ack_undone_beside_a_receipt(story, ("receipts",))
    assert not judge(story.events)


# The program

def write(path: Path, story: Story) -> Path:
    history = History(path)
    history.events = story.events
    history.flush()
    return path


def test_the_program_prints_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    forged_messages.confirmed_and_never_seen(story)
    assert main([str(write(tmp_path / "history", story))]) == 1
    said = capsys.readouterr().out.splitlines()
    words = "1 confirmed is delivered, per queue of its route: client 1/1/1 is lost from queue 'jobs'"
    assert said[0].startswith(words)
    assert said[1] == f"{len(story.events)} events, 1 findings"


def test_the_program_has_nothing_against_a_sound_history(tmp_path: Path) -> None:
    assert main([str(write(tmp_path / "history", Story()))]) == 0


@pytest.mark.parametrize("text", [None, "{}\n", "nonsense\n"])
def test_the_program_says_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = tmp_path / "history"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 66
    assert str(path) in capsys.readouterr().err
