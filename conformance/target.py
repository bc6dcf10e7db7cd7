"""Find out which broker is under test, by its server properties, and which capabilities it has.

The files `brokers/*.toml` describe the brokers on which the suite was run. A file matches if all its `properties` are
among those of the broker; the file with the most properties is tried first. Its `version` is the first one that it
describes; it applies up to the version of another file with the same properties. With `keys`, the broker must have
exactly these properties, so that a product that calls itself RabbitMQ, but has a property of its own, does not match. A
broker without a file has the standard capabilities and those that it announces.
"""
from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from conformance.capabilities import ANNOUNCED, BY_OPTION, MEANINGS, STANDARD

BROKERS = Path(__file__).parent / "brokers"
ALWAYS_ANNOUNCED = "capabilities"


@dataclass(frozen=True)
class Profile:
    """The content of a file in `brokers/`."""

    name: str
    has: frozenset[str]
    lacks: frozenset[str]
    properties: Mapping[str, str]
    keys: frozenset[str]
    version: tuple[int, ...]

    def rank(self, properties: Mapping[str, Any]) -> tuple[int, tuple[int, ...]] | None:
        """How well the file fits a broker with these properties; None when it does not."""
        has_all = all(properties.get(name) == value for name, value in self.properties.items())
        has_more = bool(self.keys) and self.keys != properties.keys()
        if not self.properties or not has_all or has_more or self.version > version_of(properties):
            return None
        return len(self.properties), self.version


@dataclass(frozen=True)
class Target:
    """The broker under test: how it calls itself, its file if it has one, and its capabilities."""

    product: str
    profile: Profile | None
    capabilities: frozenset[str]

    def forgives(self, *, is_standard: bool) -> bool:
        """Whether a test that fails counts as `differs`: AMQP 0-9-1 itself does not demand what it asks."""
        return not is_standard and "rabbitmq-choices" not in self.capabilities

    def missing(self, needed: set[str]) -> list[str]:
        """Return those of the needed capabilities that it lacks."""
        return sorted(needed - self.capabilities)

    def __str__(self) -> str:
        described = f"as described in brokers/{self.profile.name}.toml" if self.profile else (
            "unknown: asked for AMQP 0-9-1 and for what it announces")
        return f"{self.product}, {described}"


def target_of(properties: Mapping[str, Any], options: set[str], profile: str | None = None) -> Target:
    """Return the capabilities of a broker with these server properties and options of the command line.

    `profile` is the name of a file in `brokers/`, or a path; it is used without regard to the properties.
    """
    chosen = read_profile(profile_path(profile)) if profile else best_profile(properties)
    announced = properties.get(ALWAYS_ANNOUNCED) or {}
    can = STANDARD.keys() | {name for name in ANNOUNCED if announced.get(name) is True}
    if chosen is not None:
        can = (can | chosen.has) - chosen.lacks
    can |= {name for name, option in BY_OPTION.items() if option in options}
    product = f"{properties.get('product', 'a broker without a name')} {properties.get('version', '')}".strip()
    return Target(product, chosen, frozenset(can))


def best_profile(properties: Mapping[str, Any]) -> Profile | None:
    """Return the file that fits best, or None when none does."""
    ranked = [(rank, profile) for profile in all_profiles() if (rank := profile.rank(properties)) is not None]
    return max(ranked, key=lambda one: one[0])[1] if ranked else None


def all_profiles() -> list[Profile]:
    """Read the files of all known brokers."""
    return [read_profile(path) for path in sorted(BROKERS.glob("*.toml"))]


def profile_path(name: str) -> Path:
    """Return the path of a file that is named as in `brokers/` or by its path; ValueError when there is none."""
    for path in (BROKERS / f"{name}.toml", Path(name)):
        if path.is_file():
            return path
    raise ValueError(f"no file {name}.toml in {BROKERS}, and no file {name}")


def read_profile(path: Path) -> Profile:
    """Read a broker's file; ValueError when it names a capability that does not exist."""
    content = tomllib.loads(path.read_text())
    has, lacks = frozenset(content.get("has", ())), frozenset(content.get("lacks", ()))
    if unknown := sorted((has | lacks) - MEANINGS.keys()):
        raise ValueError(f"{path} names capabilities that do not exist: {', '.join(unknown)}")
    return Profile(path.stem, has, lacks, content.get("properties", {}), frozenset(content.get("keys", ())),
                   numbers(content.get("version", "")))


def version_of(properties: Mapping[str, Any]) -> tuple[int, ...]:
    """The broker's version as numbers."""
    return numbers(str(properties.get("version", "")))


def numbers(version: str) -> tuple[int, ...]:
    """`3.10.8` as 3, 10, 8; what follows the first part without digits is left out."""
    found: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
