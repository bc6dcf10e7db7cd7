"""What single routes answer where the broker once answered otherwise than RabbitMQ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.api import Api

BOUNDARY = "aboundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
RIGHTS = {"configure": ".*", "write": ".*", "read": ".*"}


def names(found: Any) -> list[str]:
    return [one["name"] for one in found["items"]]


def test_a_regular_expression_finds_names_in_either_case_and_a_wrong_one_is_refused_as_a_page_is(api: Api) -> None:
    for name in ("Case.1", "case.2", "other"):
        assert api.put(f"/queues/%2F/{name}") == 201
    assert names(api.get("/queues?page=1&sort=name&use_regex=true&name=%5Ecase")) == ["Case.1", "case.2"]
    assert names(api.get("/queues?page=1&sort=name&use_regex=false&name=%5Ecase")) == []
    reply = api.ask("GET", "/queues?page=1&use_regex=true&name=(")
    assert (reply.status, reply.body) == (400, {
        "error": "bad_request", "reason": "Pagination parameters are invalid"})


def test_what_does_not_exist_has_no_bindings_and_a_component_without_parameters_has_none(api: Api) -> None:
    for path in ("/queues/%2F/nothing/bindings", "/exchanges/%2F/nothing/bindings/source",
                 "/exchanges/%2F/nothing/bindings/destination", "/parameters/nothing", "/parameters/nothing/%2F"):
        assert api.get(path) == []
    for path in ("/parameters/nothing/nowhere", "/queues/nowhere/nothing/bindings", "/user-limits/nobody"):
        assert api.ask("GET", path).status == 404


def test_quorum_queues_and_policies_are_told_without_statistics(api: Api) -> None:
    assert api.put("/policies/%2F/short", {"pattern": "^short", "definition": {"max-length": 5}}) == 201
    assert api.put("/queues/%2F/short.quorum", {"durable": True, "arguments": {"x-queue-type": "quorum"}}) == 201
    assert api.put("/queues/%2F/long.classic") == 201
    path = "/queues/%2F?disable_stats=true&enable_queue_totals=true"
    found = {one["name"]: one for one in api.get(path)}
    quorum, classic = found["short.quorum"], found["long.classic"]
    assert quorum["members"] == quorum["online"] == [quorum["leader"]] == [classic["node"]]
    assert (quorum["policy"], quorum["messages"]) == ("short", 0)
    assert not {"members", "policy", "message_stats"} & classic.keys()


def test_the_memory_of_binaries_is_told_by_use(api: Api) -> None:
    (node,) = api.get("/nodes")
    binary = api.get(f"/nodes/{node['name']}?binary=true")["binary"]
    assert {"connection_readers", "queue_procs", "msg_index", "other"} <= binary.keys()
    assert all(isinstance(size, int) for size in binary.values())


def test_a_number_is_no_password_and_no_pattern_and_a_hash_that_was_read_can_be_set_again(api: Api) -> None:
    assert api.put("/users/numbers", {"password": 1, "tags": ""}) == 400
    assert api.put("/users/numbers", {"password": "secret", "tags": "management"}) == 201
    assert api.put("/permissions/%2F/numbers", RIGHTS | {"read": 1}) == 400
    found = api.get("/users/numbers")
    assert found["hashing_algorithm"] == "scrypt"
    assert api.delete("/users/numbers") == 204
    assert api.put("/users/numbers", found) == 201
    assert api.get("/whoami", user=("numbers", "secret"))["name"] == "numbers"


def test_policies_and_parameters_of_an_exported_vhost_name_it_and_can_be_imported_into_another(api: Api) -> None:
    assert api.put("/vhosts/exported") == api.put("/vhosts/imported") == 201
    assert api.put("/policies/exported/p", {"pattern": "", "definition": {"max-length": 9}}) == 201
    assert api.put("/queues/exported/q", {"durable": True}) == 201
    definitions = api.get("/definitions/exported")
    assert [one["vhost"] for one in definitions["policies"]] == ["exported"]
    assert "vhost" not in definitions["queues"][0]
    assert api.ask("POST", "/definitions/imported", definitions).status == 204
    assert [one["name"] for one in api.get("/policies/imported")] == ["p"]
    reply = api.ask("GET", "/definitions/nowhere")
    assert (reply.status, reply.body["reason"]) == (400, "vhost_not_found")


def form(definitions: Any, field: str = "file", redirect: str = "") -> bytes:
    """The body of a form that uploads definitions."""
    parts = [(f'name="{field}"; filename="d.json"', json.dumps(definitions)), ('name="redirect"', redirect)]
    text = "".join(f"--{BOUNDARY}\r\ncontent-disposition: form-data; {about}\r\n\r\n{value}\r\n"
                   for about, value in parts)
    return f"{text}--{BOUNDARY}--\r\n".encode()


def test_a_form_uploads_definitions_and_sends_the_browser_back(api: Api) -> None:
    queue = {"queues": [{"name": "by-form", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}]}
    reply = api.ask("POST", "/definitions", form(queue, redirect="../#/import-succeeded"), headers=FORM)
    assert (reply.status, reply.headers["location"]) == (303, "../#/import-succeeded")
    assert api.get("/queues/%2F/by-form")["durable"] is True
    assert api.ask("POST", "/definitions", form(queue), headers=FORM).status == 204
    reply = api.ask("POST", "/definitions", form(queue, field="other"), headers=FORM)
    assert (reply.status, reply.body["reason"]) == (400, "failed_to_parse_json")


@pytest.mark.parametrize("redirect", [
    "https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:alert(1)", "..//x"])
def test_a_form_sends_no_browser_elsewhere(api: Api, redirect: str) -> None:
    queue = {"queues": [{"name": "elsewhere", "vhost": "/"}]}
    assert api.ask("POST", "/definitions", form(queue, redirect=redirect), headers=FORM).status == 400
    assert api.ask("GET", "/queues/%2F/elsewhere").status == 404


def test_the_root_leads_to_the_description_of_the_routes(api: Api) -> None:
    for path in ("", "/"):
        reply = api.ask("GET", path, user=None)
        assert (reply.status, reply.headers["location"]) == (301, "/api/openapi.json")
