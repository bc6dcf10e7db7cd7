"""The web page as such: what every page has, signing in, rights, static files, and what templates may not have."""

from __future__ import annotations

import gzip
import html
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from amqpd.config import Management
from amqpd.management.http.access import Access
from amqpd.management.page.table import page_routes
from amqpd.management.page.static_files import FOLDER
from amqpd.management.page.web_page import HEADERS, TEMPLATES
from tests.management.page.conftest import FORM, Visitor, user_with
from tests.support.api import FREE, Api, running

# No part of these may be read as markup, script or address.
HOSTILE = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "{{7*7}}{% raw %}",
    "javascript:alert(1)", "</title><svg/onload=alert(1)>", "a\u2028b\u202ec",
    "../../etc/passwd", "&lt;b&gt;", "`${7}`")
FILES = sorted([*TEMPLATES.rglob("*.html")])
INLINE = re.compile(
    r"""<script(?![^>]*\ssrc=)|<style|\s(?:style|on\w+|hx-on[\w:-]*)\s*=|javascript:|\|\s*safe\b|hx-vals=["']js""")

# What answers other than with a page of its own: a redirect leads exactly here, and nowhere else.
ELSEWHERE: dict[str, tuple[int, str | None]] = {
    "/definitions/export": (303, "../api/definitions?download=amqpd-definitions.json"), "/session": (204, None)}


def pages() -> list[str]:
    """The paths of all pages that name nothing."""
    return sorted(route.path for route in page_routes() if route.method == "GET" and "{" not in route.path)


@pytest.mark.parametrize("path", pages())
def test_every_page_allows_nothing_but_its_own_files(guest: Visitor, path: str) -> None:
    reply = guest.get(path)
    assert (reply.status, reply.headers.get("location")) == ELSEWHERE.get(path, (200, None))
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS
    assert (reply.headers["x-content-type-options"], reply.headers["cache-control"]) == ("nosniff", "no-store")
    assert not INLINE.search(reply.body.decode())


def test_the_policy_allows_no_inline_script_and_no_other_host() -> None:
    assert HEADERS["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_template_has_no_script_and_no_style_in_it(file: Path) -> None:
    assert not INLINE.search(file.read_text())


@pytest.mark.parametrize("path", pages())
def test_whoever_has_not_signed_in_gets_the_form_and_comes_back(api: Api, path: str) -> None:
    reply = api.ask("GET", path, user=None, prefix="")
    if path == "/login":
        assert reply.status == 200
    else:
        assert (reply.status, reply.headers["location"]) == (
            303, "/login" if path == "/" else f"/login?to={quote(path, safe='')}")


def test_every_page_but_the_form_needs_a_login() -> None:
    assert {route.path for route in page_routes() if route.access is Access.ANYONE} == {"/login", "/logout"}


@pytest.mark.parametrize("path", [
    route.path for route in page_routes() if route.method == "POST" and route.access is not Access.ANYONE])
def test_who_only_watches_sends_no_form(api: Api, path: str) -> None:
    watcher = user_with(api, "watching", "monitoring")
    # Watchers may close connections of their own: one that there is not is refused as such.
    assert watcher.post(re.sub(r"{[a-z]+}", "%2F", path)).status == (
        404 if path == "/connections/{connection}/close" else 401)


# Signing in

@pytest.mark.parametrize(("wanted", "location"), [
    ("/queues?vhost=%2F", "/queues?vhost=%2F"), ("", "/"), ("//elsewhere.example", "/"), ("/\\elsewhere", "/"),
    ("https://elsewhere.example/", "/"), ("/a\r\nset-cookie: x", "/"), ("/" + "a" * 5_000, "/")])
def test_signing_in_leads_to_a_page_of_this_broker(api: Api, wanted: str, location: str) -> None:
    body = f"username=guest&password=guest&to={quote(wanted)}".encode()
    reply = api.ask("POST", "/login", body, user=None, headers=FORM, prefix="")
    assert (reply.status, reply.headers["location"]) == (303, location)
    assert "HttpOnly; SameSite=Strict" in reply.headers["set-cookie"]


@pytest.mark.parametrize(("fields", "text"), [
    (b"username=&password=", "Enter a user name."), (b"username=guest&password=wrong", "has another password"),
    (b"username=%3Cb%3E&password=secret", "&lt;b&gt;")])
def test_a_login_that_fails_shows_the_form_with_the_error_and_without_the_password(
    api: Api, fields: bytes, text: str
) -> None:
    reply = api.ask("POST", "/login", fields, user=None, headers=FORM, prefix="")
    shown = reply.body.decode()
    assert (reply.status, text in shown, "set-cookie" in reply.headers) == (422, True, False)
    assert "wrong" not in shown and "secret" not in shown


def test_a_user_without_a_tag_is_not_let_in(api: Api) -> None:
    api.put("/users/plain", {"password": "plain", "tags": ""})
    reply = api.ask("POST", "/login", b"username=plain&password=plain", user=None, headers=FORM, prefix="")
    assert (reply.status, b"none of the tags" in reply.body) == (422, True)


def test_signing_out_ends_the_session(api: Api) -> None:
    visitor = Visitor(api)
    assert visitor.get("/session").status == 204
    assert visitor.post("/logout").headers["location"] == "/login"
    assert visitor.get("/queues").status == 303


def test_a_part_of_a_page_leads_to_the_form_once_the_session_has_ended(api: Api) -> None:
    reply = api.ask("GET", "/queues", user=None, prefix="", headers={
        "HX-Request": "true", "HX-Target": "div#live", "HX-Current-URL": f"http://127.0.0.1:{api.port}/queues?name=a"})
    assert (reply.status, reply.headers["hx-redirect"]) == (200, "/login?to=%2Fqueues%3Fname%3Da")


@pytest.mark.parametrize("headers", [
    {"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
def test_another_sites_page_can_send_no_form(guest: Visitor, headers: dict[str, str]) -> None:
    reply = guest.api.ask("POST", "/queues", b"vhost=/&name=x&type=classic", user=None, prefix="", headers={
        **FORM, "Cookie": guest.cookie, **headers})
    assert (reply.status, guest.api.ask("GET", "/queues/%2F/x").status) == (403, 404)


# Rights

def test_a_page_shows_what_the_api_would_show(api: Api, guest: Visitor) -> None:
    api.put("/vhosts/other")
    api.put("/queues/%2F/mine")
    api.put("/queues/other/foreign")
    user = user_with(api, "reader", "management")
    shown = user.text("/queues")
    assert "mine" in shown and "foreign" not in shown and "foreign" in guest.text("/queues")
    assert user.get("/queues/other/foreign").status == user.get("/queues?vhost=other").status == 401
    assert b"foreign" not in user.get("/queues/other/foreign").body


def test_a_form_does_what_the_api_would_do(api: Api) -> None:
    api.put("/queues/%2F/kept")
    user = user_with(api, "reader", "management")
    assert user.post("/queues/%2F/kept/delete").status == 401
    refused = user.post("/queues", "declare", vhost="/", name="new", type="classic")
    assert (refused.status, b"Access refused." in refused.body) == (422, True)
    assert api.ask("GET", "/queues/%2F/kept").status == 200 and api.ask("GET", "/queues/%2F/new").status == 404


def test_what_a_form_does_is_in_the_audit_log_once(api: Api, guest: Visitor) -> None:
    guest.post("/queues", "declare", vhost="/", name="audited", type="classic")
    entries = [one["action"] for one in api.get("/amqpd/audit?limit=5") if "audited" in one["action"]]
    assert entries == ["PUT /api/queues/%2F/audited"]


def test_a_user_who_is_deleted_sees_nothing_more(api: Api) -> None:
    user = user_with(api, "leaving", "administrator")
    assert user.get("/").status == 200
    api.delete("/users/leaving")
    assert user.get("/").status == 303


# What is shown

@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_as_text_and_leads_to_its_page(api: Api, guest: Visitor, name: str) -> None:
    encoded = quote(name, safe="")
    assert api.put(f"/queues/%2F/{encoded}", {"arguments": {"x-dead-letter-exchange": name}}) == 201
    listed, shown = guest.text(f"/queues?name={encoded}"), guest.text(f"/queues/%2F/{encoded}")
    for text in (listed, shown):
        assert name not in text or not re.search("[<>\"'&]", name)
        assert name in html.unescape(text)
    assert f'href="/queues/%2F/{encoded}"' in listed
    assert api.delete(f"/queues/%2F/{encoded}") == 204


def test_a_part_of_a_page_is_sent_alone(guest: Visitor) -> None:
    part = guest.get("/queues", part="live").body.decode()
    assert "<table" in part and "<html" not in part and "<nav class=\"side\"" not in part


def test_a_page_that_there_is_not_is_told_by_a_page(guest: Visitor, api: Api) -> None:
    reply = guest.get("/queues/%2F/none")
    assert (reply.status, b"<h1>There is no such page</h1>" in reply.body) == (404, True)
    assert guest.get("/nowhere").status == api.ask("GET", "/nowhere", user=None, prefix="").status == 404
    assert api.ask("GET", "/nowhere").body == {"error": "Object Not Found", "reason": "Not Found"}


def test_an_event_of_a_form_that_was_carried_out_is_ascii(guest: Visitor) -> None:
    reply = guest.post("/queues", "declare", vhost="/", name="é🐰\"", type="classic", durable="on")
    event = json.loads(reply.headers["hx-trigger"])["amqpd:done"]
    assert (reply.status, event["text"], event["to"]) == (
        204, "Queue é🐰\" is declared.", "/queues/%2F/%C3%A9%F0%9F%90%B0%22")


# Files

def test_files_are_kept_by_browsers_and_compressed(guest: Visitor) -> None:
    address = re.search(r'href="(/static/[0-9a-f]+/amqpd.css)"', guest.text("/queues"))
    assert address is not None
    reply = guest.api.ask("GET", address[1], user=None, prefix="", headers={"Accept-Encoding": "gzip"})
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (reply.headers["content-type"], reply.headers["content-encoding"]) == ("text/css; charset=utf-8", "gzip")
    assert gzip.decompress(reply.body) == (FOLDER / "amqpd.css").read_bytes()
    assert guest.api.ask("GET", address[1], user=None, prefix="").body == (FOLDER / "amqpd.css").read_bytes()


@pytest.mark.parametrize("path", [
    "/static/x/amqpd.css", "/static/x/..%2F..%2Fweb_page.py", "/static/x/vendor/htmx/LICENSE", "/static/"])
def test_no_other_file_is_sent(api: Api, path: str) -> None:
    assert api.ask("GET", path, user=None, prefix="").status == 404


def test_the_first_page_with_all_files_is_at_most_150_kib(guest: Visitor) -> None:
    text = guest.text("/")
    found = set(re.findall(r'(?:href|src)="(/static/[^"#]+)', text))
    size = len(text) + sum(
        int(guest.api.ask("GET", one, user=None, prefix="", headers={"Accept-Encoding": "gzip"}).headers[
            "content-length"]) for one in found)
    assert len(found) >= 7 and size <= 150 << 10


def test_a_prefix_stands_in_front_of_every_address() -> None:
    with running(management=Management(listeners=(FREE,), path_prefix="/broker")) as api:
        reply = api.ask("POST", "/login", b"username=guest&password=guest", user=None, headers=FORM, prefix="/broker")
        assert reply.headers["location"] == "/broker/"
        cookie = {"Cookie": reply.headers["set-cookie"].partition(";")[0]}
        shown = api.ask("GET", "/queues", user=None, headers=cookie, prefix="/broker").body.decode()
        addresses = re.findall(r'(?:href|src|action|hx-post|data-chart)="([^"#]+)', shown)
        assert len(addresses) > 10 and all(one.startswith("/broker/") for one in addresses)
        assert 'data-base="/broker"' in shown
        assert api.ask("GET", "/queues", user=None, prefix="/broker").headers["location"] == (
            "/broker/login?to=%2Fqueues")
