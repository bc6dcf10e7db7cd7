"""The pages of policies and operator policies: the lists, and the form of one with a preview of what it matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done, wrong
from amqpd.management.page.lists import Column, Listing, Record, vhost_filter
from amqpd.management.page.navigation import Rights, rights_of
from amqpd.management.page.policy_keys import BY_KEY, KEYS, definition_of
from amqpd.management.page.shown import Shown, form, page, path_of

APPLY_TO = (
    ("queues", "queues"), ("exchanges", "exchanges"), ("all", "queues and exchanges"),
    ("classic_queues", "classic queues"), ("quorum_queues", "quorum queues"))
TOLD = 12       # queues and exchanges that a preview names


class _Kind(NamedTuple):
    """Policies, or operator policies: the noun, the path of the page and of the API, and what they mean."""

    noun: str
    path: str
    api: str
    is_operator: bool
    text: str

    def may(self, rights: Rights) -> bool:
        """Return whether a user with these rights may set them."""
        return rights.administrates if self.is_operator else rights.makes_policies


KINDS: Mapping[str, _Kind] = {
    "policies": _Kind("policy", "/policies", "/api/policies", False,
                      "Of the policies that match a queue or an exchange, the one with the highest priority is in "
                      "force. Arguments of the client come before it."),
    "operator-policies": _Kind("operator policy", "/operator-policies", "/api/operator-policies", True,
                               "They are in force besides policies and arguments: of limits that both set, the lower "
                               "one counts.")}


def _columns(kind: _Kind, rights: Rights) -> Sequence[Column]:
    def link(record: Record) -> str:
        return path_of(kind.path[1:], record["vhost"], record["name"])

    return (
        Column("name", "Name", link=link if kind.may(rights) else None), Column("vhost", "Vhost"),
        Column("pattern", "Pattern", "code"), Column("apply-to", "Applies to"),
        Column("definition", "Definition", "json", is_sorted=False), Column("priority", "Priority", "number"))


async def list_policies(request: Request, *, kind: _Kind) -> Shown:
    """Show the policies of the vhosts that the user sees, or of one. Raises HttpError."""
    vhost, may = request.query.get("vhost", ""), kind.may(rights_of(request.user))
    listing = Listing(
        request, kind.path, _columns(kind, rights_of(request.user)), noun=kind.noun, plural=kind.noun[:-1] + "ies",
        filters=[vhost_filter(request)], empty="They set what queues and exchanges whose names match a pattern have in "
        "common" + (": to make one, choose Add." if may else ". Policymakers and administrators make them."))
    await listing.load(request, kind.api + (path_of(vhost) if vhost else ""))
    return Shown("policies.html", {
        "listing": listing, "form": Form(), "may_set": may, **_common(request, kind)}, "policies")


def _common(request: Request, kind: _Kind) -> dict[str, Any]:
    return {
        "kind": kind, "apply_to": APPLY_TO, "keys": [key for key in KEYS if key.suits(kind.is_operator)],
        "vhosts": sorted(vhost.name for vhost in request.visible_vhosts()), "policy": None, "preview": None,
        "text": ""}


async def show_policy(request: Request, *, kind: _Kind) -> Shown:
    """Show one policy in its form. Raises HttpError."""
    return await _shown(request, kind, _filled(await _policy(request, kind)))


async def _policy(request: Request, kind: _Kind) -> Record:
    found: Record = await request.ask("GET", kind.api + path_of(request.names["vhost"], request.names["name"]))
    return found


def _filled(policy: Record) -> Form:
    """Return the form with the values of a policy."""
    found, definition = Form(), dict(policy["definition"])
    values = {"vhost": policy["vhost"], "name": policy["name"], "pattern": policy["pattern"],
              "apply_to": policy["apply-to"], "priority": str(policy["priority"])}
    for key in list(definition):
        if key in BY_KEY and BY_KEY[key].takes(definition[key]):
            values[key] = str(definition.pop(key))
    values["more"] = BY_KEY.written(definition)
    found.values = values
    return found


async def _shown(request: Request, kind: _Kind, found: Form, status: int = 200) -> Shown:
    asked, _ = _asked(found, kind)
    preview = None
    if status == 200:
        preview = await _preview(request, asked, found.values["vhost"])
    policy = {"vhost": request.names["vhost"], "name": request.names["name"]}
    return Shown("policy.html", {
        **_common(request, kind), "form": found, "policy": policy, "preview": preview}, "policies", status)


def _asked(found: Form, kind: _Kind) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a form asks for: for a preview, and as the API takes it. Notes errors in the form."""
    definition = definition_of(found, is_operator=kind.is_operator)
    priority = found.whole("priority", least=-(1 << 53))
    body = {"pattern": found.text("pattern"), "definition": definition, "priority": priority or 0,
            "apply-to": found.text("apply_to") or "queues"}
    return {**body, "name": found.text("name"), "is_operator": kind.is_operator, "most": TOLD}, body


async def _preview(request: Request, asked: dict[str, Any], vhost: str) -> Any:
    """Return the preview, or None if there is no pattern yet. Raises HttpError."""
    if not vhost:
        return None
    return await request.ask("POST", "/api" + path_of("vhosts", vhost, "policy-preview"), body=asked)


async def preview_policy(request: Request, *, kind: _Kind) -> Shown:
    """Show what the policy of a form would match, and what is wrong with it so far. Raises HttpError."""
    found = Form(request)
    asked, _ = _asked(found, kind)
    common = _common(request, kind)
    vhost = found.text("vhost")
    if vhost not in common["vhosts"]:
        raise wrong("Choose a vhost.")
    try:
        preview, text = await _preview(request, asked, vhost), " ".join(found.errors.values())
    except HttpError as error:
        preview, text = None, str(error.reason)
    return Shown("policies.html", {
        **common, "listing": None, "form": found, "may_set": True, "preview": preview, "text": text}, "policies")


async def set_policy(request: Request, *, kind: _Kind) -> Shown | Answer:
    """Set a policy, or show the form with what is wrong. Raises HttpError."""
    found, is_new = Form(request), "name" not in request.names
    common = _common(request, kind)
    if not is_new:
        found.values |= {"vhost": request.names["vhost"], "name": request.names["name"]}
    vhost = found.choice("vhost", common["vhosts"])
    name = found.text("name", required="Enter a name.")
    found.text("pattern", required="Enter a pattern: .* matches every name, ^shop\\. those that begin with “shop.”.")
    found.choice("apply_to", [key for key, _ in APPLY_TO])
    asked, body = _asked(found, kind)
    if found.is_valid and is_new and await _exists(request, kind, vhost, name):
        found.errors["name"] = f"There is a {kind.noun} of this name: choose another, or change that one."
    if found.is_valid:
        for fault in (await _preview(request, asked, vhost))["faults"]:
            _place(found, fault)
    if found.is_valid:
        try:
            await request.ask("PUT", kind.api + path_of(vhost, name), body=body)
        except HttpError as error:
            found.refused(error)
    if found.is_valid:
        return done(f"The {kind.noun} {name} is in force.", to=kind.path)
    if is_new:
        return Shown("policies.html", {**common, "listing": None, "form": found, "may_set": True}, "policies", 422)
    return await _shown(request, kind, found, 422)


async def _exists(request: Request, kind: _Kind, vhost: str, name: str) -> bool:
    try:
        await request.ask("GET", kind.api + path_of(vhost, name))
    except HttpError as error:
        if error.status != 404:
            raise
        return False
    return True


def _place(found: Form, fault: str) -> None:
    """Note a fault beside the field that it is about: faults of keys begin with the key."""
    key = fault.partition(":")[0]
    if fault == "no policy provided":
        found.errors[""] = "Set at least one of the keys."
    elif key in BY_KEY:
        found.errors[key] = fault.partition(": ")[2]
    elif fault.startswith("pattern "):
        found.errors["pattern"] = fault
    elif fault.startswith("name "):
        found.errors["name"] = fault
    else:
        found.errors["more"] = " ".join([found.errors.get("more", ""), fault + "."]).strip()


async def delete_policy(request: Request, *, kind: _Kind) -> Answer:
    """Delete a policy. Raises HttpError."""
    await request.ask("DELETE", kind.api + path_of(request.names["vhost"], request.names["name"]))
    return done(f"The {kind.noun} {request.names['name']} is deleted.", to=kind.path)


def _routes(kind: _Kind) -> list[Any]:
    one, access = kind.path + "/{vhost}/{name}", Access.ADMINISTRATOR if kind.is_operator else Access.POLICIES
    nouns = kind.noun[:-1] + "ies"
    return [
        page(kind.path, partial(list_policies, kind=kind), f"The {nouns}"),
        form(kind.path, partial(set_policy, kind=kind), f"Add one of the {nouns}", access=access),
        form(kind.path + "/preview", partial(preview_policy, kind=kind), f"What one of the {nouns} would match",
             access=access),
        page(one, partial(show_policy, kind=kind), f"One of the {nouns}", access=access),
        form(one, partial(set_policy, kind=kind), f"Change one of the {nouns}", access=access),
        form(one + "/delete", partial(delete_policy, kind=kind), f"Delete one of the {nouns}", access=access)]


ROUTES = [route for kind in KINDS.values() for route in _routes(kind)]
