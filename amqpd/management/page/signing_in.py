"""The form to sign in, and the way out. The page keeps no password: a session is a cookie."""

from __future__ import annotations

from amqpd.management.http.access import TAGS, Access
from amqpd.management.http.answers import Answer
from amqpd.management.http.request import Request
from amqpd.management.http.sessions import set_cookie, token_of
from amqpd.management.page.forms import Form
from amqpd.management.page.shown import Shown, form, page, to

LONGEST = 2_000         # of an address to go back to
UNKNOWN = "This user does not exist, or has another password."
NO_TAGS = ("This user may not use the web page: it has none of the tags management, policymaker, monitoring, "
           "administrator.")


def show_form(request: Request) -> Shown:
    """Show the form to sign in."""
    return Shown("sign_in.html", {"form": Form(), "to": local(request.query.get("to", ""))})


async def sign_in(request: Request) -> Shown | Answer:
    """Begin a session, or show the form with the error."""
    form = Form(request)
    name, password = form.text("username", required="Enter a user name."), form.text("password")
    wanted = local(form.values.get("to", ""))
    if form.is_valid:
        user = await request.context.login(name, password, request.address, request.is_tls)
        if user is None:
            form.errors["password"] = UNKNOWN
        elif not TAGS & set(user.definition.tags):
            form.errors["username"] = NO_TAGS
        else:
            token = request.context.sessions.begin(user)
            answer = to(f"{prefix(request)}{wanted}")
            return Answer(303, headers={**answer.headers, "set-cookie": set_cookie(token, is_tls=request.is_tls)})
    form.values.pop("password", None)
    return Shown("sign_in.html", {"form": form, "to": wanted}, status=422)


def sign_out(request: Request) -> Answer:
    """End the session."""
    token = token_of(request.headers.get("cookie", ""), is_tls=request.is_tls)
    if token is not None:
        request.context.sessions.end(token)
    return Answer(303, headers={
        "location": f"{prefix(request)}/login", "set-cookie": set_cookie("", is_tls=request.is_tls)})


def tell_session(request: Request) -> Answer:
    """Tell a script whether there is a session: a link from another site does not send the cookie at first."""
    return Answer(204)


def prefix(request: Request) -> str:
    """Return what stands in front of every path."""
    return request.context.path_prefix.rstrip("/")


def local(address: str) -> str:
    """Return the address if it leads to a page of this broker, else that of the overview."""
    is_local = address.startswith("/") and address[1:2] not in ("/", "\\") and len(address) <= LONGEST
    return address if is_local and address.isprintable() and address.isascii() else "/"


ROUTES = [
    page("/login", show_form, "The form to sign in", access=Access.ANYONE),
    form("/login", sign_in, "Begin a session", access=Access.ANYONE, most_body=16 << 10),
    form("/logout", sign_out, "End the session", access=Access.ANYONE, most_body=16 << 10),
    page("/session", tell_session, "Whether there is a session"),
]
