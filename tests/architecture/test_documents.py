"""The files, functions, settings and commands that the documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amqpd.cli import amqpd
from amqpd.config import load
from amqpd.config.settings import Config
from amqpd.ctl.commands import all_commands
from amqpd.store.sqlite.schema import newest_format

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
OPERATING = (ROOT / "docs/operating.md").read_text()
RABBITMQCTL = (ROOT / "docs/rabbitmqctl.md").read_text()
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


def test_the_pages_for_operators_name_every_command_of_amqpctl() -> None:
    assert not [command for command in all_commands() if f"`{command}`" not in OPERATING + RABBITMQCTL]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_limit_that_a_document_names_is_a_setting(document: Path) -> None:
    named = set(re.findall(r"`limits\.(\w+)`", (ROOT / document).read_text()))
    assert named <= set(type(Config().limits).__struct_fields__)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_settings_that_a_document_shows_can_be_loaded(document: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL):
        file = tmp_path / "amqpd.toml"
        file.write_text(block)
        load(str(file), {})


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_command_that_opens_the_broker_to_the_network_names_a_user(document: Path) -> None:
    assert not guest_alone((ROOT / document).read_text())


def test_the_help_shows_no_command_that_guest_alone_cannot_use() -> None:
    assert amqpd.help and not guest_alone(amqpd.help)


def guest_alone(text: str) -> list[str]:
    """Return the commands that a start refuses, since guest is the only user and the network can connect."""
    shown = re.findall(r"^    .*\bamqpd .*$", text, re.MULTILINE)
    return [line for line in shown if "listen 0.0.0.0" in line and "_DEFAULT_USER=" not in line]


def test_the_page_for_operators_names_the_copies_of_all_older_formats() -> None:
    last = f"amqpd.db.format-{newest_format() - 1}"
    assert f"`amqpd.db.format-1` to `{last}` |" in OPERATING
    assert f"cp /var/lib/amqpd/{last} " in OPERATING
    assert f"writes format {newest_format()}, and reads 1 to {newest_format()}." in OPERATING
