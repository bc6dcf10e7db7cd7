"""A user made for a module of tests. The end of each name tells the user's permissions on it.

After the last point come `c`, `w` and `r`, for configure, write and read.
"""
from __future__ import annotations

import shlex
import subprocess
import uuid
from dataclasses import dataclass
from urllib.parse import quote

from conformance.client import parse_url

PASSWORD = "correct horse"
BY_ENDING = (r"\.[wr]*c[wr]*$", r"\.[cr]*w[cr]*$", r"\.[cw]*r[cw]*$")      # configure, write, read


@dataclass(frozen=True)
class Guest:
    """A user made for this module, and the command that makes and changes users."""

    name: str
    vhost: str
    url: str
    command: str

    def ctl(self, *words: str) -> None:
        """Run rabbitmqctl with these arguments."""
        done = subprocess.run(f"{self.command} {shlex.join(words)}", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def permit(self, configure: str, write: str, read: str) -> None:
        """Set what the user may do."""
        self.ctl("set_permissions", "-p", self.vhost, self.name, configure, write, read)

    def refusal(self, resource: str) -> str:
        """Return the text of the refusal; the resource is written as in `Texts`."""
        return f"ACCESS_REFUSED - access to {resource} refused for user '{self.name}'"


def new_guest(broker_url: str, command: str) -> Guest:
    """Make a user with a password, and no permissions anywhere yet."""
    parts, name = parse_url(broker_url), f"guest {uuid.uuid4().hex[:8]}"
    url = f"amqp://{quote(name)}:{quote(PASSWORD)}@{parts.host}:{parts.port}/{quote(parts.vhost, safe='')}"
    guest = Guest(name, parts.vhost, url, command)
    guest.ctl("add_user", name, PASSWORD)
    return guest
