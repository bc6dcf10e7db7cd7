"""The page of definitions: export, preview, import, and what it refuses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_users import HOSTILE
from tests.support.api import Api, Reply

MADE: dict[str, Any] = {
    "vhosts": [{"name": "/"}, {"name": "new"}],
    "users": [{"name": "made", "password": "s3cret", "tags": ""}, {"name": "guest", "password": "guest",
                                                                   "tags": "administrator,management"}],
    "queues": [{"name": "q", "vhost": "new", "durable": True, "auto_delete": False, "arguments": {}}],
    "exchanges": [{"name": "x", "vhost": "new", "type": "fanout", "durable": True, "arguments": {}}],
    "bindings": [{"source": "x", "vhost": "new", "destination": "q", "destination_type": "queue", "routing_key": "",
                  "arguments": {}}],
    "policies": [{"vhost": "/", "name": "p", "pattern": ".*", "definition": {"max-length": 9}, "priority": 0,
                  "apply-to": "queues"}]}


def upload(visitor: Visitor, path: str, content: Any, **fields: str) -> Reply:
    """Send a form with a file, as a script does."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
             for name, value in fields.items()]
    parts.append(b'--B\r\nContent-Disposition: form-data; name="file"; filename="d.json"\r\n'
                 b'Content-Type: application/json\r\n\r\n' + data + b"\r\n--B--\r\n")
    return visitor.api.ask("POST", path, b"".join(parts), user=None, prefix="", headers={
        "Content-Type": "multipart/form-data; boundary=B", "Cookie": visitor.cookie, "HX-Request": "true",
        "HX-Target": "div#result"})


def digest_of(reply: Reply) -> str:
    """Return the hidden field of a preview that tells which file it is of."""
    found = re.search(r'name="digest" value="(\w+)"', reply.body.decode())
    assert reply.status == 200 and found is not None
    return found[1]


def test_an_import_changes_nothing_before_it_has_been_shown(api: Api, guest: Visitor) -> None:
    api.put("/policies/%2F/p", {"pattern": ".*", "definition": {"max-length": 1}, "apply-to": "queues"})
    reply = upload(guest, "/definitions/preview", MADE)
    shown, digest = reply.body.decode(), digest_of(reply)
    assert "5 would be added, 2 changed; 1 stay the same." in shown and "Import 7 definitions" in shown
    assert re.search(r'guest</th><td>user</td><td></td>\s*<td>.*changed</span> <span class="hint">tags<', shown)
    assert re.search(r'p</th><td>policy</td><td>/</td>\s*<td>.*changed</span> <span class="hint">definition<', shown)
    assert "s3cret" not in shown and "<html" not in shown
    assert api.ask("GET", "/vhosts/new").status == 404
    other = upload(guest, "/definitions/import", {**MADE, "users": []}, digest=digest)
    assert (other.status, b"another one than that whose changes are shown" in other.body) == (422, True)
    assert upload(guest, "/definitions/import", MADE, digest="").status == 422
    assert api.ask("GET", "/vhosts/new").status == 404
    assert upload(guest, "/definitions/import", MADE, digest=digest).status == 204
    assert api.get("/queues/new/q")["durable"] and api.get("/users/made")["tags"] == []
    again = upload(guest, "/definitions/preview", MADE).body.decode()
    assert "Nothing would change; 5 stay the same." in again and "Import" not in again
    for path in ("/vhosts/new", "/users/made", "/policies/%2F/p"):
        api.delete(path)


def test_what_differs_is_told_without_values(api: Api, guest: Visitor) -> None:
    api.put("/users/known", {"password": "old", "tags": ""})
    file = {"users": [{"name": "known", "password": "other-one", "tags": "monitoring"}]}
    preview = api.ask("POST", "/amqpd/definitions-preview", file).body
    assert preview["changes"] == [
        {"kind": "user", "vhost": "", "name": "known", "change": "changed", "fields": ["password", "tags"]}]
    api.put("/queues/%2F/stays", {"durable": True})
    file = {"queues": [{"name": "stays", "vhost": "/", "durable": True, "auto_delete": False,
                        "arguments": {"x-max-length": 1}}]}
    preview = api.ask("POST", "/amqpd/definitions-preview", file).body
    assert preview["changes"] == [] and "exists and stays as it is, although it differs" in preview["warnings"][0]
    assert b"exists and stays as it is" in upload(guest, "/definitions/preview", file).body


@pytest.mark.parametrize(("content", "told"), [
    (b"", "Choose a file with definitions"), (b"{", "cannot be imported; nothing has changed"),
    (b"[1]", "cannot be imported"), ({"users": [{"name": ""}]}, "cannot be imported"),
    ({"policies": [{"vhost": "/", "name": "p", "pattern": "(", "definition": {"max-length": 1}}]}, "$.policies[0]"),
    (b"\xff\xfe\x00", "cannot be imported")])
def test_a_file_that_is_wrong_is_refused_with_the_place(guest: Visitor, content: Any, told: str) -> None:
    for path in ("/definitions/preview", "/definitions/import"):
        reply = upload(guest, path, content)
        assert reply.status == 422
        if "preview" in path:
            assert told in reply.body.decode()


def test_an_import_into_one_vhost(api: Api, guest: Visitor) -> None:
    api.put("/vhosts/one")
    file = {"queues": [{"name": "q", "durable": True, "auto_delete": False, "arguments": {}}]}
    digest = digest_of(upload(guest, "/definitions/preview", file, vhost="one"))
    assert upload(guest, "/definitions/import", file, vhost="one", digest=digest).status == 204
    assert api.get("/queues/one/q")["vhost"] == "one"
    assert upload(guest, "/definitions/preview", file, vhost="nowhere").status == 404
    api.delete("/vhosts/one")


def test_definitions_are_exported_by_a_link(api: Api, guest: Visitor) -> None:
    reply = guest.get("/definitions/export")
    assert (reply.status, reply.headers["location"]) == (303, "../api/definitions?download=amqpd-definitions.json")
    assert guest.get("/definitions/export?vhost=%2F").headers["location"].startswith("../api/definitions/%2F?")
    assert guest.get("/definitions/export?vhost=none").status == 404
    reply = guest.get("/api/definitions?download=amqpd-definitions.json")
    assert reply.headers["content-disposition"] == 'attachment; filename="amqpd-definitions.json"'


def test_only_administrators_come_to_definitions(api: Api) -> None:
    for name, tags in (("sees", "monitoring"), ("sets", "policymaker")):
        visitor = user_with(api, name, tags)
        assert visitor.get("/definitions").status == visitor.get("/definitions/export").status == 401
        for path in ("/definitions/preview", "/definitions/import"):
            assert upload(visitor, path, MADE).status == 401
        assert api.ask("POST", "/amqpd/definitions-preview", {}, user=(name, name)).status == 401


def test_hostile_names_are_text(guest: Visitor) -> None:
    file = {"vhosts": [{"name": name} for name in HOSTILE], "users": [
        {"name": name, "password_hash": "", "tags": ""} for name in HOSTILE]}
    shown = upload(guest, "/definitions/preview", file).body.decode()
    assert "14 would be added" in shown and "<img" not in shown and ">49<" not in shown


def test_a_long_file_is_named_in_part(api: Api) -> None:
    file = {"vhosts": [{"name": f"v{number}"} for number in range(700)]}
    preview = api.ask("POST", "/amqpd/definitions-preview", file).body
    assert (preview["added"], len(preview["changes"])) == (700, 500)
