"""The files, functions, settings and commands that the documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amqpd.config.settings import Config
from amqpd.ctl.commands import amqpctl

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
MAP = (ROOT / "CONTRIBUTING.md").read_text()
LINK = re.compile(r"\]\(([^):]+)\)")                # but for those with a scheme, such as https:
ROOM = re.compile(r"^\| `amqpd/(\w+)/` \|", re.MULTILINE)
# Sections of the README in the order in which a reader needs them.
SECTIONS = [
    "amqpd", "Three minutes", "Connect what you have", "Configure", "Operate", "Promises", "Differences",
    "Who should not use it", "Status"]


def test_the_readme_goes_from_the_first_minutes_to_the_status() -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^##? (.+)$", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize(("document", "link"), [
    (document, link) for document in DOCUMENTS for link in LINK.findall((ROOT / document).read_text())])
def test_a_link_leads_to_what_there_is(document: Path, link: str) -> None:
    file, _, heading = link.partition("#")
    target = (ROOT / document).parent / file if file else ROOT / document
    assert target.exists()
    assert not heading or heading in anchors(target.read_text())


def anchors(text: str) -> list[str]:
    """What a heading of Markdown is linked to by: its words in small letters, with hyphens between them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("place", re.findall(r"`(\w+/\w+\.py: \w+)`", MAP))
def test_a_step_of_the_map_leads_to_a_function_there_is(place: str) -> None:
    path, _, function = place.partition(": ")
    assert f"def {function}(" in (ROOT / "amqpd" / path).read_text()


def test_the_map_shows_every_room() -> None:
    assert set(ROOM.findall(MAP)) == {path.parent.name for path in (ROOT / "amqpd").glob("*/__init__.py")}


def test_the_page_for_operators_names_every_command_of_amqpctl() -> None:
    page = (ROOT / "docs/operating.md").read_text()
    assert not [command for command in amqpctl.commands if f"`{command}`" not in page]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_limit_that_a_document_names_is_a_setting(document: Path) -> None:
    named = set(re.findall(r"`limits\.(\w+)`", (ROOT / document).read_text()))
    assert named <= set(type(Config().limits).__struct_fields__)
