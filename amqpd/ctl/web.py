"""The client that asks a broker over HTTP, for `--url`: what `client` is for the control socket.

    POST http://host:15672/api/amqpctl
    {"command": "purge_queue", "arguments": {"vhost": "/", "queue": "orders"}}
    {"ok": true, "result": null}

What may be large is base64 in `body`, in the request and in the answer. The user is in the URL. The password is never
on the command line, where every user of the machine could read it: it is in AMQPCTL_PASSWORD, or in the file
~/.config/amqpd/passwords, which has a line for each URL, or it is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import click

from amqpd.exit_codes import EXIT_CONFIG, EXIT_NO_PERMISSION, EXIT_TEMPORARY, EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.program import Failure
from amqpd.wording import escape

PASSWORD_VARIABLE = "AMQPCTL_PASSWORD"
PASSWORDS = Path("~/.config/amqpd/passwords")
ROUTE = "/api/amqpctl"
DEFAULT_USER = "guest"
PORTS = {"http": 15_672, "https": 15_671}
LONGEST_ANSWER = 256 << 20
LOOK_S = 0.1
WRONG_LOGIN = "not_authorized"      # as the error of a 401; "not_authorised" is a right that is missing
SHOWN = 200             # characters of an answer that is not understood


class Address(NamedTuple):
    """Where a broker is asked, and by which user."""

    scheme: str
    host: str
    port: int
    path: str
    user: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{quote(self.user, safe='')}@{host}:{self.port}{self.path}"


def address_of(url: str) -> Address:
    """Return the address in a URL. Raises Failure."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Failure(f"--url: {error}", EXIT_USAGE) from None
    if parts.password is not None:
        raise Failure(
            f"--url: a password on the command line can be read by others: put it into {PASSWORD_VARIABLE} or "
            f"{PASSWORDS}", EXIT_USAGE)
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment:
        raise Failure("--url: give http://USER@HOST:PORT or https://USER@HOST:PORT", EXIT_USAGE)
    return Address(parts.scheme, parts.hostname, port or PORTS[parts.scheme], parts.path.rstrip("/"),
                   unquote(parts.username or DEFAULT_USER))


def ask(
    url: str, command: str, arguments: dict[str, Any], *, timeout_s: float, until_gone: bool = False, body: bytes = b"",
) -> Any:
    """Send one request and return the result; with `until_gone`, wait until the broker has ended.

    Raises Failure: the refusal that was answered, 69 if no broker answers, 75 on a timeout, 77 for a wrong login.
    """
    address = address_of(url)
    request: dict[str, Any] = {"command": command, "arguments": arguments}
    if body:
        request["body"] = base64.b64encode(body).decode()
    answer = _post(address, json.dumps(request).encode(), timeout_s)
    if not answer["ok"]:
        raise Failure(answer["error"], answer["exit_code"])
    if until_gone:
        _wait_until_gone(address, timeout_s)
    return base64.b64decode(answer["body"]) if "body" in answer else answer.get("result")


def follow(url: str, command: str, arguments: dict[str, Any], *, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Send a request that is answered with a stream, and yield its records as they come.

    The first answer is waited for at most `timeout_s`, records without limit. Raises Failure as `ask` does.
    """
    address = address_of(url)
    with _posted(address, json.dumps({"command": command, "arguments": arguments}).encode(), timeout_s) as (
            response, wait_without_limit):
        answer = _understood(address, response.status, response.readline(LONGEST_ANSWER))
        if not answer["ok"]:
            raise Failure(answer["error"], answer["exit_code"])
        wait_without_limit()
        while line := response.readline():
            yield json.loads(line)


def _post(address: Address, request: bytes, timeout_s: float) -> dict[str, Any]:
    with _posted(address, request, timeout_s) as (response, _):
        content = response.read(LONGEST_ANSWER)
    return _understood(address, response.status, content)


@contextlib.contextmanager
def _posted(
    address: Address, request: bytes, timeout_s: float
) -> Iterator[tuple[http.client.HTTPResponse, Callable[[], None]]]:
    """Post a request. Yield the response, and a function that removes the time limit of further reads."""
    password = _password(address)
    login = base64.b64encode(f"{address.user}:{password}".encode()).decode()
    try:
        with contextlib.closing(_connection(address, timeout_s)) as connection:
            connection.request("POST", address.path + ROUTE, request, {
                "Authorization": f"Basic {login}", "Content-Type": "application/json"})
            connected = connection.sock     # the response may take it over
            yield connection.getresponse(), partial(connected.settimeout, None)
    except TimeoutError:
        raise Failure(f"no answer within {timeout_s:g} s from {address}", EXIT_TEMPORARY) from None
    except ssl.SSLError as error:
        raise Failure(f"cannot reach amqpd at {address}: TLS: {error.reason or error}", EXIT_UNAVAILABLE) from None
    except http.client.RemoteDisconnected as error:
        raise Failure(f"cannot reach amqpd at {address}: {error}", EXIT_UNAVAILABLE) from None
    except http.client.BadStatusLine:
        raise Failure(
            f"{address} does not answer as HTTP: it is not amqpd's management listener", EXIT_UNAVAILABLE) from None
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"cannot reach amqpd at {address}: {getattr(error, 'strerror', None) or error}",
                      EXIT_UNAVAILABLE) from None


def _connection(address: Address, timeout_s: float) -> http.client.HTTPConnection:
    if address.scheme == "https":
        return http.client.HTTPSConnection(
            address.host, address.port, timeout=timeout_s, context=ssl.create_default_context())
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)


def _understood(address: Address, status: int, content: bytes) -> dict[str, Any]:
    """Return an answer. Raises Failure if it is none of amqpd's."""
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("ok"), bool):
        return answer
    told = answer if isinstance(answer, dict) else {}
    if status == 401 and told.get("error", WRONG_LOGIN) == WRONG_LOGIN:
        elsewhere = f"; {DEFAULT_USER!r} may log in only on the broker's machine" * (address.user == DEFAULT_USER)
        raise Failure(
            f"wrong user or password for {address}: give the user in the URL, and the password in "
            f"{_place_of_password(address)}{elsewhere}", EXIT_NO_PERMISSION)
    if status in (401, 403):
        reason = told.get("reason", "")
        raise Failure(
            f"{address.user!r} may not do this at {address}: {reason or 'the login was refused'}", EXIT_NO_PERMISSION)
    if status == 404:
        raise Failure(f"{address} has no {ROUTE}: it is not amqpd's management listener", EXIT_UNAVAILABLE)
    shown = escape(content[:SHOWN].decode(errors="replace"))
    raise Failure(f"{address} answered with status {status}: {shown}", EXIT_UNAVAILABLE)


def _wait_until_gone(address: Address, timeout_s: float) -> None:
    """Wait until nobody accepts connections there. Raises Failure on a timeout."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            with socket.create_connection((address.host, address.port), timeout=timeout_s):
                pass
        except OSError:
            return
        time.sleep(LOOK_S)
    raise Failure(f"amqpd at {address} has not ended within {timeout_s:g} s", EXIT_TEMPORARY)


# The password

def _password(address: Address) -> str:
    """Return the user's password: from the environment, the file, or the terminal. Raises Failure."""
    given = os.environ.get(PASSWORD_VARIABLE)
    if given is None:
        given = _kept_password(address, PASSWORDS.expanduser())
    if given is None and sys.stdin.isatty():
        given = click.prompt(f"Password of {address.user}", hide_input=True, default="", show_default=False, err=True)
    if given is None:
        raise Failure(
            f"no password for {address}: put it into {PASSWORD_VARIABLE}, or into {PASSWORDS} as a line "
            f"'{address} PASSWORD'", EXIT_NO_PERMISSION)
    return given


def _place_of_password(address: Address) -> str:
    """Tell where the password is from."""
    if PASSWORD_VARIABLE in os.environ:
        return PASSWORD_VARIABLE
    return str(PASSWORDS) if _kept_password(address, PASSWORDS.expanduser()) is not None else "the prompt"


def _kept_password(address: Address, file: Path) -> str | None:
    """Return the password for this address in a file that only its owner may read; None without one."""
    try:
        mode = file.stat().st_mode
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file}: cannot be read: {error}", EXIT_CONFIG) from None
    if mode & 0o077:
        raise Failure(f"{file}: others may read the passwords in it; change that: chmod 600 {file}", EXIT_CONFIG)
    for line in lines:
        url, _, password = line.strip().partition(" ")
        if url and not url.startswith("#") and address_of(url) == address:
            return password.strip()
    return None
