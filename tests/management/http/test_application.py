"""Requests to the management API as such: logins, methods, what each answer has, and who may cause a change."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from amqpd.config import Config, File, Listener, Management, Tls
from amqpd.management.http.access import Access
from amqpd.management.http.routes import Route, Routes
from amqpd.management.http.table import all_routes
from amqpd.server.runtime import Runtime
from amqpd.server.startup import StartError
from tests.support.api import FREE, Api, running

REALM = 'Basic realm="RabbitMQ Management"'


def test_the_user_is_who_logged_in(api: Api) -> None:
    assert api.get("/whoami") == {"name": "guest", "tags": ["administrator"]}


def test_without_credentials_the_answer_is_empty_and_asks_for_them(api: Api) -> None:
    reply = api.ask("GET", "/whoami", user=None)
    assert (reply.status, reply.body, reply.headers["www-authenticate"]) == (401, b"", REALM)


@pytest.mark.parametrize("user", [("guest", "wrong"), ("nobody", "guest"), ("guest", ""), ("", "")])
def test_wrong_credentials_are_told_apart_from_none(api: Api, user: tuple[str, str]) -> None:
    reply = api.ask("GET", "/whoami", user=user)
    assert (reply.status, reply.body) == (401, {"error": "not_authorized", "reason": "Login failed"})
    assert reply.headers["www-authenticate"] == REALM


def test_a_header_of_another_scheme_is_a_failed_login(api: Api) -> None:
    assert api.ask("GET", "/whoami", user=None, headers={"Authorization": "Bearer x"}).status == 401


@pytest.mark.parametrize("header", ["Basic", "Basic =", "Basic /w==", "Basic Z3Vlc3Q=", "Basic \xff"])
def test_a_header_that_cannot_be_read_is_a_bad_request(api: Api, header: str) -> None:
    reply = api.ask("GET", "/whoami", user=None, headers={"Authorization": header})
    assert (reply.status, reply.body) == (400, b"")


def test_a_path_that_leads_nowhere_is_not_found(api: Api) -> None:
    reply = api.ask("GET", "/nowhere")
    assert (reply.status, reply.body) == (404, {"error": "Object Not Found", "reason": "Not Found"})


def test_a_method_that_a_path_does_not_have_is_told_with_those_it_has(api: Api) -> None:
    reply = api.ask("DELETE", "/whoami")
    assert (reply.status, reply.headers["allow"]) == (405, "HEAD, GET, OPTIONS")


def test_head_answers_without_a_body(api: Api) -> None:
    reply = api.ask("HEAD", "/whoami")
    assert (reply.status, reply.body, int(reply.headers["content-length"])) == (200, b"", 41)


def test_every_answer_has_the_headers_that_protect_browsers(api: Api) -> None:
    for reply in (api.ask("GET", "/whoami"), api.ask("GET", "/whoami", user=None), api.ask("GET", "/nowhere")):
        assert reply.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in reply.headers
        assert "strict-transport-security" not in reply.headers


PING = {"command": "ping"}
UNTYPED = {"Content-Type": None}        # no such header


@pytest.mark.parametrize("headers", [
    {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Type": ""},
    {"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}])
def test_a_change_that_another_sites_page_can_cause_is_refused(api: Api, headers: dict[str, str]) -> None:
    reply = api.ask("POST", "/amqpctl", PING, headers=headers)
    assert (reply.status, reply.body["error"]) == (403, "forbidden")


@pytest.mark.parametrize(("of_browser", "status"), [
    ({}, 200), ({"Origin": "same"}, 403), ({"Sec-Fetch-Site": "same-origin"}, 403), ({"Sec-Fetch-Site": "none"}, 403),
    ({"Cookie": "a=b"}, 403), ({"Referer": "http://elsewhere.example/"}, 403)])
def test_a_body_without_a_type_is_taken_from_anyone_but_a_browser(
        api: Api, of_browser: dict[str, str], status: int) -> None:
    headers = {name: f"http://127.0.0.1:{api.port}" if value == "same" else value for name, value in of_browser.items()}
    assert api.ask("POST", "/amqpctl", PING, headers=headers | UNTYPED).status == status


def test_a_change_by_a_page_of_the_same_origin_is_carried_out(api: Api) -> None:
    headers = {"Origin": f"http://127.0.0.1:{api.port}", "Sec-Fetch-Site": "same-origin"}
    assert api.ask("POST", "/amqpctl", PING, headers=headers).body == {"ok": True, "result": None}


def test_amqpctl_is_answered_as_on_the_control_socket(api: Api) -> None:
    sent = {"command": "purge_queue", "arguments": {"vhost": "/", "queue": "none"}}
    assert api.ask("POST", "/amqpctl", sent).body == {
        "ok": False, "error": "not_found: no queue 'none' in vhost '/'", "exit_code": 69}


def test_a_name_in_a_path_may_have_any_character_and_a_fixed_segment_goes_first() -> None:
    table = Routes([
        Route(method="GET", path="/a/{vhost}/{name}", handler=repr, access=Access.VHOST, summary="two names"),
        Route(method="GET", path="/a/all", handler=repr, access=Access.LOGIN, summary="a fixed one"),
        Route(method="GET", path="/a/{vhost}", handler=repr, access=Access.VHOST, summary="one name")])
    found = table.find("/a/%2F/x%2Fy%20%C3%A9/")
    assert found is not None and dict(found.names) == {"vhost": "/", "name": "x/y é"}
    fixed, named = table.find("/a/all"), table.find("/a/al")
    assert fixed is not None and fixed.routes["GET"].summary == "a fixed one"
    assert named is not None and named.routes["GET"].summary == "one name"
    assert table.find("/a/b/c/d") is None and table.find("/") is None


def test_two_routes_of_one_path_and_method_are_a_mistake() -> None:
    route = Route(method="GET", path="/a", handler=repr, access=Access.LOGIN, summary="")
    with pytest.raises(ValueError, match="two routes for GET /a"):
        Routes([route, route])


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    assert api.ask("POST", "/amqpctl", b" " * (17 << 20)).status == 413


def test_too_many_parameters_are_refused(api: Api) -> None:
    assert api.ask("GET", "/whoami?" + "a=1&" * 200).status == 400


def test_two_lengths_of_one_body_are_refused(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(b"POST /api/amqpctl HTTP/1.1\r\nHost: x\r\n"
                       b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 400"


def test_what_is_no_http_is_answered_once_and_closed(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(b"AMQP\0\0\x09\x01 and more\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 400"
        while client.recv(4096):
            pass


def test_the_document_describes_every_route(api: Api) -> None:
    document = api.get("/openapi.json", user=None)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in all_routes().all}
    assert document["openapi"] == "3.1.0"


def test_a_prefix_stands_in_front_of_every_path() -> None:
    with running(management=Management(listeners=(FREE,), path_prefix="/broker")) as api:
        assert api.ask("GET", "/whoami", prefix="/broker/api").status == 200
        assert api.ask("GET", "/whoami").status == 404


def test_over_tls_browsers_are_told_to_stay_there(tmp_path: Path) -> None:
    from amqpd.ctl.certificates import make_certificates

    make_certificates.main([str(tmp_path), "-q"], standalone_mode=False)
    server = next(tmp_path.glob("server*.pem"))
    key = next(tmp_path.glob("server*key*"))
    tls = Tls(certificate=File(str(server)), key=File(str(key)))
    with running(management=Management(tls_listeners=(FREE,)), tls=tls) as api:
        context = ssl.create_default_context(cafile=str(next(tmp_path.glob("ca*.pem"))))
        with socket.create_connection(("127.0.0.1", api.port)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert b"strict-transport-security: max-age=31536000" in answer


class Unset(Management, frozen=True, kw_only=True):
    """The listeners of a management API, and of metrics, that nobody has set, at other addresses than the defaults."""

    @property
    def is_default(self) -> bool:
        return True

    @property
    def has_default_metrics(self) -> bool:
        return True


async def addresses(management: Management, kind: type[Runtime] = Runtime, *, has_default: bool = True) -> Any:
    """Start a broker and return where its management API is, and where its metrics are."""
    config = Config(memory=True, listeners=(FREE,), management=management)
    async with kind(config, has_default_http=has_default) as runtime:
        return runtime.http_addresses, runtime.metrics_addresses


@pytest.mark.parametrize("what, field", [("management API", "listeners"), ("metrics", "metrics_listeners")])
def test_without_a_setting_a_taken_default_address_is_a_warning(
    caplog: pytest.LogCaptureFixture, what: str, field: str
) -> None:
    place = ["listeners", "metrics_listeners"].index(field)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Listener(f"127.0.0.1:{other.getsockname()[1]}")
        listeners: dict[str, Any] = {"listeners": (FREE,), "metrics_listeners": (FREE,), field: (taken,)}
        found = asyncio.run(addresses(Unset(**listeners)))
        assert found[place] == [] and len(found[1 - place]) == 1
        assert f"no {what}: cannot listen on {taken}: Address already in use" in caplog.text
        caplog.clear()
        assert asyncio.run(addresses(Unset(**listeners), has_default=False)) == ([], [])
        assert f"no {what}" not in caplog.text
        with pytest.raises(StartError, match="Address already in use"):
            asyncio.run(addresses(Management(**listeners)))


def test_only_a_process_of_its_own_serves_http_where_nobody_has_set_it() -> None:
    assert Management().is_default and not Management(listeners=(FREE,)).is_default
    assert Management().has_default_metrics and not Management(metrics_listeners=(FREE,)).has_default_metrics
    both = Unset(listeners=(FREE,), metrics_listeners=(FREE,))
    assert asyncio.run(addresses(both, has_default=False)) == ([], [])
    assert [*map(len, asyncio.run(addresses(both)))] == [1, 1]


def test_without_a_management_api_metrics_are_served_only_if_that_is_set() -> None:
    assert Management(listeners=()).optional == Config(management=Management(listeners=())).all_listeners[1:] == ()
    assert asyncio.run(addresses(Unset(listeners=(), metrics_listeners=(FREE,)))) == ([], [])
    set_ = Management(listeners=(), metrics_listeners=(FREE,))
    assert [*map(len, asyncio.run(addresses(set_, has_default=False)))] == [0, 1]


@pytest.mark.parametrize("kind", [Management, Unset])
@pytest.mark.parametrize("what, field", [("management API", "listeners"), ("metrics", "metrics_listeners")])
def test_an_address_that_another_program_takes_between_bind_and_listen_is_told(
    kind: type[Management], what: str, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Two programs may bind one address as long as neither listens."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        wanted = Listener(f"127.0.0.1:{other.getsockname()[1]}")

        class Late(Runtime):
            async def _open_http(self, *arguments: Any) -> Any:
                other.listen()
                return await super()._open_http(*arguments)

        listeners: dict[str, Any] = {"listeners": (FREE,), "metrics_listeners": (FREE,), field: (wanted,)}
        started = addresses(kind(**listeners), Late)
        if kind is Unset:
            assert sorted(map(len, asyncio.run(started))) == [0, 1]
            assert f"no {what}: cannot listen on {wanted}: Address already in use" in caplog.text
        else:
            with pytest.raises(StartError, match="Address already in use"):
                asyncio.run(started)
