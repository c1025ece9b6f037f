"""Tokens of a user, asked for, shared and renewed: OAuth's password and refresh_token grants.

Whoever needs a token asks `Session`; however many do, the server is asked once. What a user has is found
by whoever built the session, each time anew, so that a login made meanwhile counts. Secrets are `Secret`s,
which no repr, log or traceback shows. Knows nothing of where they are kept.
"""

import logging
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from functools import partial

import httpx
import msgspec
import trio

from tciafs.archives.http.client import USER_AGENT, checked_url, unwound
from tciafs.archives.http.errors import FOREIGN, translate
from tciafs.archives.http.limits import HttpLimits
from tciafs.errors import AccessDenied, DeadlinePassed, Misuse, TciafsError, Unreachable, UnreadableAnswer

__all__ = ["Login", "Secret", "Session", "ask_for_tokens", "require_encrypted", "token_url"]

log = logging.getLogger(__name__)

CLIENT_ID = "NBIA"
"""What the archive's own programs call themselves; the server puts its own client in its place."""

RENEW_AHEAD_S = 60.0
"""A token that ends sooner than this is renewed: the request it goes with takes a while to get there."""

RENEW_AGAIN_S = 60.0
"""A token that took the place of a refused one so lately, and is refused too, is not what is wrong."""

ASSUMED_LIFE_S = 300.0
"""Of a token whose server does not say, Keycloak's own default."""

GUEST_FOR_S = 300.0
"""After a login was refused the server is not asked again with the same for so long: accounts get locked."""

WHOLE_S = 60.0
MOST_ANSWER_BYTES = 64 * 1024
REFUSALS = frozenset([400, 401, 403])
"""RFC 6749 section 5.2 has 400 and 401; proxies in front say 403."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that is shown to nobody who does not ask for `text`."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """Who a user is: a password, a refresh token, or both; the token is tried first."""

    user: str
    password: Secret | None = None
    refresh_token: Secret | None = None


class _Answer(msgspec.Struct):
    """What `oauth/token` answers; other fields are of no use here."""

    access_token: str
    expires_in: float | None = None
    refresh_token: str | None = None

    def __repr__(self) -> str:
        return "_Answer()"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A token that requests carry, for how many seconds it is good, and the login that it came from."""

    access: Secret
    life_s: float
    login: Login


def token_url(services_url: str) -> str:
    """Return where the server of these services gives tokens: `oauth/token` beside `services`.

    It also names that server among logins. Raises Misuse where the address is none.
    """
    url = checked_url(services_url)
    parts = url.path.rstrip("/").split("/")
    while parts[-1] in ("services", "v4", "v2", "v1"):
        del parts[-1]
    return str(url.copy_with(path="/".join([*parts, "oauth/token"])))


def require_encrypted(services_url: str) -> None:
    """Raise Misuse where a login would cross a network in the clear."""
    url = checked_url(services_url)
    if url.scheme != "https" and url.host not in ("127.0.0.1", "::1", "localhost"):
        raise Misuse(f"a login is sent by https only, and the archive's address is {url.scheme}://{url.host}")


async def ask_for_tokens(
    services_url: str, login: Login, limits: HttpLimits, transport: httpx.AsyncBaseTransport | None = None
) -> Tokens:
    """Return new tokens for a login: by its refresh token, else by its password.

    Raises AccessDenied where the server refuses what there is, Unreachable, DeadlinePassed,
    UnreadableAnswer, or Misuse where the server is not asked by https.
    """
    require_encrypted(services_url)
    grants = []
    if login.refresh_token is not None:
        grants.append({"grant_type": "refresh_token", "refresh_token": login.refresh_token.text})
    if login.password is not None:
        grants.append({"grant_type": "password", "username": login.user, "password": login.password.text})
    refusal = AccessDenied(f"the login of {login.user} holds neither a token nor a password")
    for grant in grants:
        try:
            answer = await _granted(httpx.URL(token_url(services_url)), grant, limits, transport)
        except AccessDenied as error:
            refusal = error
        else:
            return _tokens(answer, login)
    raise refusal


def _tokens(answer: _Answer, login: Login) -> Tokens:
    if answer.refresh_token:
        login = replace(login, refresh_token=Secret(answer.refresh_token))
    life_s = ASSUMED_LIFE_S if answer.expires_in is None else max(0.0, answer.expires_in)
    return Tokens(Secret(answer.access_token), life_s, login)


async def _granted(
    url: httpx.URL, grant: dict[str, str], limits: HttpLimits, transport: httpx.AsyncBaseTransport | None
) -> _Answer:
    """Return the server's answer to a grant; redirects are not followed, with a secret in the body."""
    timeout = httpx.Timeout(limits.stall_timeout_s, connect=limits.connect_timeout_s)
    headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
    form = {"client_id": CLIENT_ID, **grant}
    try:
        with trio.fail_after(WHOLE_S):
            async with (
                httpx.AsyncClient(timeout=timeout, headers=headers, transport=transport) as client,
                client.stream("POST", url, data=form) as response,
            ):
                body = await _read(response, url.host)
    except trio.TooSlowError:
        raise DeadlinePassed(f"{url.host} did not answer a login within {WHOLE_S:g} s") from None
    except FOREIGN as error:
        # Not `from error`: its request has the secret in its body.
        raise translate(error, url.host, "a login") from None
    return _understood(response.status_code, body, url.host)


async def _read(response: httpx.Response, host: str) -> bytes:
    body = b""
    async with unwound(_pieces(response)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > MOST_ANSWER_BYTES:
                break
    if len(body) > MOST_ANSWER_BYTES:
        raise UnreadableAnswer(f"{host} answered a login with more than {MOST_ANSWER_BYTES} bytes")
    return body


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    async for piece in response.aiter_bytes():
        yield piece


def _understood(status: int, body: bytes, host: str) -> _Answer:
    if status in REFUSALS:
        raise AccessDenied(f"{host} refused the login (status {status})")
    if status >= 500 or status in (408, 429):
        raise Unreachable(f"{host} answered a login with status {status}")
    try:
        if status != 200:
            raise ValueError
        answer = msgspec.json.decode(body, type=_Answer)
    except ValueError:
        raise UnreadableAnswer(f"{host} does not answer a login as NBIA does (status {status})") from None
    if not answer.access_token.isascii() or not answer.access_token.isprintable():
        raise UnreadableAnswer(f"{host} answered a login with a token that no request can carry")
    return answer


class Session:
    """The token of one user at one server; see `http.Bearer`. Used from one thread.

    `user` is whose login it is. `find` returns the login there is by now (None: none, a guest); `keep` is
    given what the server changed in it. Both may block, and are called in a thread. `refused` is why the
    last login did not succeed, None if it did.
    """

    def __init__(
        self,
        services_url: str,
        limits: HttpLimits,
        user: str,
        find: Callable[[], Login | None],
        keep: Callable[[Login], None],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent."""
        self.user = user
        self._services_url = services_url
        self._limits = limits
        self._find = find
        self._keep = keep
        self._transport = transport
        self._renewing = trio.Lock()
        self._failure: TciafsError | None = None
        self._access: Secret | None = None
        self._ends_at = 0.0
        self._replaced_at = -math.inf
        self._refused_login: Login | None = None
        self._guest_until = 0.0
        self.refused: AccessDenied | None = None

    async def token(self) -> str | None:
        """Return a token that is good for a while yet, None to ask as a guest.

        Raises Unreachable, DeadlinePassed or UnreadableAnswer where there is a login and no token can be
        had for it.
        """
        if self._access is not None and trio.current_time() < self._ends_at:
            return self._access.text
        return await self._another(self._access)

    async def renewed(self, refused: str) -> str | None:
        """Return another token than one that was refused; the same where another would not help.

        None: ask as a guest. Raises as `token`.
        """
        access = self._access
        if access is not None and access.text == refused:
            replaced_lately = trio.current_time() < self._replaced_at + RENEW_AGAIN_S
            if replaced_lately and not self._renewing.locked():
                return refused
            self._replaced_at = trio.current_time()
            return await self._another(access)
        return await self.token()

    async def _another(self, old: Secret | None) -> str | None:
        """Return the token after `old`, asked for once for all who wait; so is a failure shared."""
        failure_before = self._failure
        async with self._renewing:
            if self._access is not old and self._access is not None:
                return self._access.text
            if self._failure is not None and self._failure is not failure_before:
                raise self._failure.with_traceback(None)
            try:
                await self._renew()
            except TciafsError as error:
                self._failure = error
                raise
            return None if self._access is None else self._access.text

    async def _renew(self) -> None:
        login = await trio.to_thread.run_sync(self._find)
        self._access = None
        if login is None or (login == self._refused_login and trio.current_time() < self._guest_until):
            return
        try:
            tokens = await ask_for_tokens(self._services_url, login, self._limits, self._transport)
        except AccessDenied as error:
            self._become_guest(login, error)
            return
        self.refused = None
        self._ends_at = trio.current_time() + max(tokens.life_s - RENEW_AHEAD_S, tokens.life_s / 2)
        self._access = tokens.access
        if tokens.login != login:
            await trio.to_thread.run_sync(partial(self._keep, tokens.login))

    def _become_guest(self, login: Login, error: AccessDenied) -> None:
        """Go on without a token: what is public needs none, and a stale one would spoil it."""
        log.warning("%s; going on as a guest", error)
        self.refused = error
        self._refused_login = login
        self._guest_until = trio.current_time() + GUEST_FOR_S
