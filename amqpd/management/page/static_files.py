"""The files that pages load: read once, compressed once, and named by their content, so that browsers keep them.

Always true: only files of the folder `static` are sent, and no name of a request is a name of a file.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, not_found
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route

FOLDER = Path(__file__).parent / "static"
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
FOREVER = "public, max-age=31536000, immutable"
SEGMENTS = 3        # of the longest name


class StaticFile(NamedTuple):
    """A file, as it is sent."""

    version: str
    kind: str
    content: bytes
    compressed: bytes


class StaticFiles:
    """All files, by their names with slashes."""

    def __init__(self) -> None:
        self._files = {
            path.relative_to(FOLDER).as_posix(): _read(path) for path in sorted(FOLDER.rglob("*"))
            if path.suffix in KINDS}

    def __getitem__(self, name: str) -> StaticFile:
        return self._files[name]

    def address(self, name: str) -> str:
        """Return the path of a file, with the version that it has."""
        return f"/static/{self._files[name].version}/{name}"

    def send(self, request: Request) -> Answer:
        """Return a file. Raises HttpError: 404, also for another version."""
        names = request.names
        name = "/".join(names[one] for one in ("folder", "library", "file") if one in names)
        found = self._files.get(name)
        if found is None or found.version != names["version"]:
            raise not_found()
        headers = {"cache-control": FOREVER}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Answer(body=found.content, media_type=found.kind, headers=headers)
        return Answer(body=found.compressed, media_type=found.kind, headers=headers | {"content-encoding": "gzip"})

    def routes(self) -> list[Route]:
        """Return the routes of the files."""
        return [Route(method="GET", path=path, handler=self.send, access=Access.ANYONE, summary="A file of a page")
                for path in ("/static/{version}/{file}", "/static/{version}/{folder}/{library}/{file}")]


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    version = hashlib.sha256(content).hexdigest()[:12]
    return StaticFile(version, KINDS[path.suffix], content, gzip.compress(content, mtime=0))
