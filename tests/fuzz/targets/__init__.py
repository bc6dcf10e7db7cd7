"""The targets of the guided fuzzer, a module each."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.targets.target import Target

NAMES = ("conf", "definitions", "frames", "logins", "patterns", "properties", "proxy", "tables")


def load(name: str) -> Target:
    """Return a target. Others are not imported, since their code may have to be instrumented."""
    target: Target = import_module(f"tests.fuzz.targets.{name}").TARGET
    return target
