"""The logins of the management API: the same check as for AMQP, with its cache, its pace and its loopback rule."""

from __future__ import annotations

import asyncio
import logging

from amqpd.broker.access import User
from amqpd.broker.worklist import nothing
from amqpd.config.settings import is_loopback
from amqpd.server.login import HTTP, Logins
from amqpd.server.sparing_log import SparingLog
from amqpd.session.sasl_steps import Login, LoginRequest

log = logging.getLogger("amqpd.http")

LIMIT_S = 30.0


class _State:
    """What `Logins` asks of a client's connection."""

    def __init__(self, address: str, *, is_tls: bool) -> None:
        self.is_local = is_loopback(address)
        self.is_private = is_tls or self.is_local


class HttpLogin:
    """One login. `Logins` treats it as it treats a session."""

    def __init__(self, request: LoginRequest, address: str, *, is_tls: bool) -> None:
        self.login: Login | None = request
        self.state = _State(address, is_tls=is_tls)
        self.answer: asyncio.Future[User | str] = asyncio.get_running_loop().create_future()

    def logged_in(self, user: User) -> object:
        """Note that the login was right."""
        self._end(user)
        return None

    def login_failed(self, reason: str) -> None:
        """Note why the login is refused."""
        self._end(reason)

    def _end(self, answer: User | str) -> None:
        self.login = None
        if not self.answer.done():
            self.answer.set_result(answer)


class HttpLogins:
    """Checks the logins of requests, as `Context.login`."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._sparing_log = SparingLog(log)

    async def check(self, user: str, password: str, address: str, is_tls: bool) -> User | None:
        """Return the user if the password is right and the user may log in from this address; else log why not."""
        login = HttpLogin(LoginRequest(user, password), address, is_tls=is_tls)
        self._logins.check(login, address, nothing, HTTP)
        try:
            async with asyncio.timeout(LIMIT_S):
                answer = await login.answer
        except TimeoutError:
            answer = f"no answer within {LIMIT_S:g} s"
            self._logins.attempts[HTTP][1] += 1
        finally:
            login.login = None      # a hash that waits is not wanted any more
        if isinstance(answer, User):
            return answer
        self._sparing_log.warning(
            "HTTP access denied: login of user '%s' from %s refused: %s", user, address, answer)
        return None
