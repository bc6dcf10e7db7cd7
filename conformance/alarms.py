"""Raise and clear memory and disk alarms with the command of `--ctl`."""
from __future__ import annotations

import shlex
import subprocess

ON = {"memory": ["set_vm_memory_high_watermark", "0.00001"], "disk": ["set_disk_free_limit", "500000000000000"]}
OFF = {"memory": ["set_vm_memory_high_watermark", "0.9"], "disk": ["set_disk_free_limit", "1000000"]}


class Alarms:
    """The broker's alarms; each is raised by a limit that no machine keeps."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._raised: set[str] = set()

    def begin(self, resource: str) -> None:
        """Raise the alarm of `memory` or `disk`."""
        self._raised.add(resource)
        self.run(*ON[resource])

    def end(self, resource: str) -> None:
        """End it."""
        self.run(*OFF[resource])
        self._raised.discard(resource)

    def end_all(self) -> None:
        """Clear all alarms that are set."""
        for resource in list(self._raised):
            self.end(resource)

    def run(self, *words: str) -> str:
        """Run the command with these words; what it said."""
        done = subprocess.run(f"{self._command} {shlex.join(words)}", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
