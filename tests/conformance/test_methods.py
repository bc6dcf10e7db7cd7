"""The conformance suite knows every method of the protocol, so that its matrices can have a row for each."""
from __future__ import annotations

from pamqp import commands

from conformance import methods


def test_every_method_of_the_protocol_has_a_name() -> None:
    known = {(index >> 16, index & 0xffff): command.name.lower().replace("ok", "-ok")
             for index, command in commands.INDEX_MAPPING.items()}
    missing = {ids: name for ids, name in known.items() if ids not in methods.NAMES}
    assert not missing
