"""Each fault of tests/crash/sabotaged.py can still be injected: the function that it replaces exists.

The tests with these brokers take minutes; a renamed function is detected here at once.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CRASH = Path(__file__).resolve().parents[1] / "crash"
FAULTS = re.findall(r"^@fault\ndef (\w+)\((\w*)", (CRASH / "sabotaged.py").read_text(), re.MULTILINE)
NAMES = {name for name, _ in FAULTS}
# Each in a process of its own, as they stay; prints the names of those that worked.
APPLY = """
import os, sys
from tests.crash.sabotaged import FAULTS
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        FAULTS[name]()
        os._exit(0)
    if not os.waitpid(child, 0)[1]:
        print(name)
"""
USED = re.compile(r'\(\*SABOTAGED, "([\w+]+)|parametrize\("(?:place|fault)", \[([^\]]+)\]')


def test_each_fault_finds_what_it_replaces() -> None:
    without_arguments = [name for name, argument in FAULTS if not argument]
    assert len(without_arguments) > 20
    done = subprocess.run(
        [sys.executable, "-c", APPLY, *without_arguments], cwd=CRASH.parents[1], capture_output=True, text=True,
        check=False)
    assert (done.returncode, done.stdout.split()) == (0, without_arguments), done.stderr


@pytest.mark.parametrize("path", sorted(CRASH.glob("test_*.py")), ids=lambda path: path.stem)
def test_each_fault_that_a_test_names_is_one(path: Path) -> None:
    named = {name for found in USED.findall(path.read_text()) for name in re.findall(r"\w+", "+".join(found))}
    assert named <= NAMES, named - NAMES
