"""Set policies for the queues and exchanges of one test, and clear them, with the command of `--ctl`."""
from __future__ import annotations

import json
import re
import shlex
import subprocess
from typing import Any


class Policies:
    """The policies of one test; by default one matches all queues and exchanges of the test and no others."""

    def __init__(self, command: str, vhost: str, prefix: str) -> None:
        self._command = command
        self._vhost = vhost
        self._prefix = prefix
        self._set: dict[tuple[str, str], None] = {}

    def set(self, definition: dict[str, Any], name: str = "policy", *, kind: str = "policy",
            pattern: str | None = None, **options: Any) -> None:
        """Set one and await that it holds. Options are `priority` and `apply_to`; kind may be `operator_policy`."""
        done = self.try_set(definition, name, kind=kind, pattern=pattern, **options)
        assert done.returncode == 0, done.stdout + done.stderr

    def try_set(self, definition: Any, name: str = "policy", *, kind: str = "policy", pattern: str | None = None,
                **options: Any) -> subprocess.CompletedProcess:
        """Set one or not; returns what the command said. A definition that is a str is sent as it is."""
        words = [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", str(value))]
        text = definition if isinstance(definition, str) else json.dumps(definition)
        pattern = f"^{re.escape(self._prefix)}" if pattern is None else pattern
        done = self.run(f"set_{kind}", "-p", self._vhost, *words, self._name(name), pattern, text)
        if done.returncode == 0:
            self._set[kind, self._name(name)] = None
        return done

    def clear(self, name: str = "policy", *, kind: str = "policy") -> None:
        """Clear one and await that it no longer holds."""
        done = self.run(f"clear_{kind}", "-p", self._vhost, self._name(name))
        assert done.returncode == 0, done.stdout + done.stderr
        self._set.pop((kind, self._name(name)), None)

    def clear_all(self) -> None:
        """Clear all policies that are set."""
        for kind, name in list(self._set):
            self.run(f"clear_{kind}", "-p", self._vhost, name)
            del self._set[kind, name]

    def run(self, *words: str) -> subprocess.CompletedProcess:
        """Run the command with these words."""
        return subprocess.run(f"{self._command} {shlex.join(words)}", shell=True, capture_output=True, text=True)

    def _name(self, name: str) -> str:
        return f"{self._prefix}.{name}"
