"""The web page as a whole: its routes, its templates, and what each of its answers has.

Always true: templates escape whatever they show; an answer allows a browser no script, style or connection but the
page's own, and none that stands in the page itself.

OWASP cheat sheets on content security policy and cross-site scripting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from amqpd import __version__
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Routes
from amqpd.management.page import words
from amqpd.management.page.forms import sentence_of
from amqpd.management.page.live import Live
from amqpd.management.page.navigation import rights_of, shown_groups
from amqpd.management.page.shown import HTML, Shown, part_of, path_of, to
from amqpd.management.page.static_files import StaticFiles
from amqpd.management.page.table import page_routes

TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
# With `no-referrer`, a browser would name no origin in the forms that it sends.
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "same-origin"}
MACROS = "parts"
TITLES = {400: "That did not work", 401: "You may not see this", 403: "Refused", 404: "There is no such page"}


class WebPage:
    """The web page under a path prefix."""

    headers: Mapping[str, str] = HEADERS

    def __init__(self, path_prefix: str = "") -> None:
        self._prefix = path_prefix.rstrip("/")
        self._files = StaticFiles()
        self.routes = Routes([*page_routes(), *self._files.routes(), Live().route()])
        self._paths = frozenset(route.path for route in self.routes.all if route.method == "GET")
        self._environment: Environment | None = None

    async def answer(self, asked: Request, result: Any) -> Answer:
        """Return the answer with what a handler returned."""
        return result if isinstance(result, Answer) else await self._render(asked, result)

    async def refused(self, asked: Request, error: HttpError) -> Answer:
        """Return the answer to a request that is refused: the form to sign in, or a page with the reason."""
        if asked.login is None and error.status == 401:
            return self._sign_in(asked)
        if _is_part(asked):
            return Answer(error.status, sentence_of(error).encode(errors="replace"), media_type=HTML)
        title = TITLES.get(error.status, "That did not work")
        if asked.login is None:
            return await self._render(asked, Shown("refused.html", {"title": title, "text": sentence_of(error)},
                                                   status=error.status))
        return await self._render(asked, Shown("error.html", {"title": title, "text": sentence_of(error)},
                                               status=error.status))

    def _sign_in(self, asked: Request) -> Answer:
        wanted = asked.headers.get("hx-current-url", "") if _is_part(asked) else ""
        path = asked.path.removeprefix(self._prefix)
        query = "&".join(f"{path_of(name)[1:]}={path_of(value)[1:]}" for name, value in asked.pairs)
        back = wanted or (path + (f"?{query}" if query else "") if asked.method == "GET" else "/")
        address = self._prefix + path_of("login", to="" if back == "/" else _local(back, self._prefix))
        if _is_part(asked):     # a script asked for a part of a page, and the session has ended
            return Answer(200, b"", {"hx-redirect": address}, HTML)
        return to(address)

    async def _render(self, asked: Request, shown: Shown) -> Answer:
        if self._environment is None:       # takes 100 ms, and clients of AMQP wait for this thread
            self._environment = await asyncio.to_thread(self._load)
        template = self._environment.get_template(shown.template)
        values = self._common(asked, shown) | shown.values
        block = part_of(asked)
        if block in template.blocks:
            content = "".join(template.blocks[block](template.new_context(values)))
        else:
            content = template.render(values)
        return Answer(shown.status, content.encode(errors="replace"), shown.headers, HTML)

    def _common(self, asked: Request, shown: Shown) -> dict[str, Any]:
        """Return what every template may use."""
        user = asked.login
        found: dict[str, Any] = {"section": shown.section, "user": None, "path": asked.path}
        if user is not None:
            found |= {
                "user": {"name": user.name, "tags": list(user.definition.tags)}, "may": rights_of(user),
                "navigation": shown_groups(user, self._paths),
                "alarms": [one["resource"] for one in asked.context.node.alarms.statistics()["alarms"]]}
        return found

    def _load(self) -> Environment:
        """Return the templates, all of them compiled."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, auto_reload=False, cache_size=-1)
        environment.filters |= words.FILTERS
        environment.globals |= {
            "url": partial(_url, self._prefix), "static": lambda name: self._prefix + self._files.address(name),
            "version": __version__}
        for name in environment.list_templates(extensions=["html"]):
            template = environment.get_template(name)
            if name.startswith(MACROS):
                environment.globals[Path(name).stem] = _Macros(template)
        return environment


class _Macros:
    """The macros of a file, which use those of other files: so they are made once all files are known."""

    def __init__(self, template: Template) -> None:
        self._template = template

    def __getattr__(self, name: str) -> Any:
        return getattr(self._template.module, name)


def _url(prefix: str, *segments: object, **query: object) -> str:
    """Return the address of a page, for templates: `url("queues", vhost, name)`."""
    return prefix + path_of(*segments, **query)


def _is_part(asked: Request) -> bool:
    """Return whether a script asked, for a part of a page."""
    return asked.headers.get("hx-request") == "true"


def _local(address: str, prefix: str) -> str:
    """Return the path of an address of this page, without the prefix."""
    scheme, separator, rest = address.partition("://")
    path = "/" + rest.partition("/")[2] if separator else address
    return path.removeprefix(prefix) if scheme else path
