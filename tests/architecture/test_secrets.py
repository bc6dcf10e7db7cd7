"""No object shows a password, a hash of one or a key in its `repr`: logs and tracebacks of callbacks may contain it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Any

import msgspec
import pytest

import amqpd
from amqpd.config import Passphrase, Secret

SESAME = "open sesame"
IS_SECRET = re.compile(r"passwords?$|password_hash$|key_password$|scram_sha256$|salt$|stored_key$|server_key$|secret")


def classes() -> list[type]:
    """All classes of the package with a field that may be a secret, by its name."""
    names = [module.name for module in pkgutil.walk_packages(amqpd.__path__, "amqpd.") if "__main__" not in module.name]
    found = [one for name in names for one in vars(importlib.import_module(name)).values()
             if inspect.isclass(one) and one.__module__ == name]
    return [one for one in found if secret_fields(one)]


def secret_fields(one: type) -> dict[str, str]:
    """The fields that may be secrets, with their annotations."""
    fields = one.__dict__.get("__annotations__", {})
    return {name: str(kind) for name, kind in fields.items() if IS_SECRET.search(name)}


def value_of(kind: str) -> Any:
    """A secret of this kind."""
    for wrapper in (Passphrase, Secret):
        if wrapper.__name__ in kind:
            return wrapper(SESAME)
    return {SESAME: SESAME} if kind.startswith("dict") else SESAME.encode() if kind == "bytes" else SESAME


CLASSES = classes()


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: one.__name__)
def test_no_repr_shows_a_secret(one: Any) -> None:
    secrets = {name: value_of(kind) for name, kind in secret_fields(one).items()}
    if issubclass(one, msgspec.Struct):
        needed = [field.name for field in msgspec.structs.fields(one) if field.required]
    else:
        needed = list(one._fields)
    filled = one(**{name: "?" for name in needed if name not in secrets} | secrets)
    for text in (repr(filled), f"{[filled]}", f"{(filled, )!s}"):
        assert SESAME not in text


def test_the_search_finds_something() -> None:
    assert len(CLASSES) >= 8
