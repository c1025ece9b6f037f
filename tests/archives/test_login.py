"""Tokens: asked for once for all who need one, renewed in time, dropped when refused, and never shown."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import parse_qs

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.login import (
    GUEST_FOR_S,
    RENEW_AGAIN_S,
    Login,
    Secret,
    Session,
    ask_for_tokens,
    require_encrypted,
    token_url,
)
from tciafs.errors import AccessDenied, DeadlinePassed, Misuse, TciafsError, Unreachable, UnreadableAnswer

URL = "https://archive.example/nbia-api/services"
LIFE_S = 600.0
PASSWORD = Login("ada", password=Secret("pa55word"))
KEPT = Login("ada", refresh_token=Secret("refresh-0"))


class Server:
    """Grants like NBIA's Keycloak: each refresh token once, the password always."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.good = {"refresh-0"}
        self.password = "pa55word"
        self.open: trio.Event | None = None
        self.answer: Callable[[], httpx.Response] | None = None
        self._number = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        form = {name: value for name, (value,) in parse_qs(request.content.decode()).items()}
        assert (request.method, str(request.url)) == ("POST", "https://archive.example/nbia-api/oauth/token")
        assert form["client_id"] == "NBIA"
        self.asked.append(form["grant_type"])
        if self.open is not None:
            await self.open.wait()
        if self.answer is not None:
            return self.answer()
        if form["grant_type"] == "password":
            is_good = (form["username"], form["password"]) == ("ada", self.password)
        else:
            is_good = form["refresh_token"] in self.good
            self.good.discard(form["refresh_token"])
        return self._grant() if is_good else httpx.Response(401, json={"error": "invalid_grant"})

    def _grant(self) -> httpx.Response:
        self._number += 1
        self.good.add(f"refresh-{self._number}")
        tokens = {"access_token": f"access-{self._number}", "refresh_token": f"refresh-{self._number}"}
        return httpx.Response(200, json={**tokens, "expires_in": LIFE_S, "id_token": "of no use"})


class User:
    """What a user has, and what was kept of it."""

    def __init__(self, login: Login | None) -> None:
        self.login = login
        self.kept: list[Login] = []

    def find(self) -> Login | None:
        return self.login

    def keep(self, login: Login) -> None:
        self.kept.append(login)
        if login.password is None:
            self.login = login


@pytest.fixture
def server() -> Server:
    return Server()


def session(server: Server, user: User) -> Session:
    transport = httpx.MockTransport(server)
    return Session(URL, HttpLimits(), "ada", user.find, user.keep, transport)


async def ask(server: Server, login: Login) -> str:
    tokens = await ask_for_tokens(URL, login, HttpLimits(), httpx.MockTransport(server))
    return tokens.access.text


# Tokens


async def test_a_token_is_asked_for_once_and_used_until_shortly_before_its_end(
    server: Server, autojump_clock: MockClock
) -> None:
    tokens = session(server, User(KEPT))
    assert [await tokens.token() for _ in range(3)] == ["access-1"] * 3
    await trio.sleep(LIFE_S - 61)
    assert await tokens.token() == "access-1"
    await trio.sleep(2)
    assert await tokens.token() == "access-2"
    assert server.asked == ["refresh_token"] * 2


async def test_many_who_need_a_token_cause_one_request(server: Server) -> None:
    tokens, given = session(server, User(KEPT)), list[str | None]()

    async def need() -> None:
        given.append(await tokens.token())

    server.open = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(need)
        await wait_all_tasks_blocked()
        server.open.set()
    assert (given, server.asked) == (["access-1"] * 20, ["refresh_token"])


async def test_many_whose_token_was_refused_cause_one_renewal(server: Server) -> None:
    tokens, given = session(server, User(KEPT)), list[str | None]()
    old = await tokens.token()
    assert old is not None

    async def need() -> None:
        given.append(await tokens.renewed(old))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(need)
    assert (given, server.asked) == (["access-2"] * 20, ["refresh_token"] * 2)


async def test_a_refused_token_is_not_replaced_again_and_again(
    server: Server, autojump_clock: MockClock
) -> None:
    tokens = session(server, User(KEPT))
    await tokens.token()
    assert await tokens.renewed("access-1") == "access-2"
    assert await tokens.renewed("access-2") == "access-2"
    await trio.sleep(RENEW_AGAIN_S)
    assert await tokens.renewed("access-2") == "access-3"
    assert len(server.asked) == 3


async def test_a_refresh_token_is_kept_when_the_server_gives_another(server: Server) -> None:
    user = User(KEPT)
    await session(server, user).token()
    assert user.kept == [Login("ada", refresh_token=Secret("refresh-1"))]


async def test_when_the_refresh_token_has_died_the_password_helps(server: Server) -> None:
    server.good.clear()
    assert await ask(server, replace(PASSWORD, refresh_token=Secret("dead"))) == "access-1"
    assert server.asked == ["refresh_token", "password"]


# A login that is refused


@pytest.mark.expect_log("refused the login .* going on as a guest")
async def test_who_is_refused_goes_on_as_a_guest_and_does_not_ask_again_for_a_while(
    server: Server, autojump_clock: MockClock
) -> None:
    server.password = "another"
    tokens = session(server, User(PASSWORD))
    assert await tokens.token() is None
    assert isinstance(tokens.refused, AccessDenied)
    assert await tokens.token() is None
    assert server.asked == ["password"]
    server.password = "pa55word"
    await trio.sleep(GUEST_FOR_S)
    assert await tokens.token() == "access-1"
    assert not tokens.refused


@pytest.mark.expect_log("going on as a guest")
async def test_a_new_login_counts_at_once(server: Server) -> None:
    user = User(Login("ada", refresh_token=Secret("dead")))
    tokens = session(server, user)
    assert await tokens.token() is None
    user.login = KEPT
    assert await tokens.token() == "access-1"


async def test_who_has_logged_out_is_a_guest(server: Server, autojump_clock: MockClock) -> None:
    user = User(KEPT)
    tokens = session(server, user)
    token = await tokens.token()
    assert token is not None
    user.login = None
    await trio.sleep(LIFE_S)
    assert await tokens.token() is None
    assert tokens.refused is None


# A server that fails


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: httpx.Response(500), Unreachable),
        (lambda: httpx.Response(429), Unreachable),
        (lambda: httpx.Response(404), UnreadableAnswer),
        (lambda: httpx.Response(302, headers={"Location": "https://other.example/"}), UnreadableAnswer),
        (lambda: httpx.Response(200, text="<html>"), UnreadableAnswer),
        (lambda: httpx.Response(200, json={"token": "x"}), UnreadableAnswer),
        (lambda: httpx.Response(200, json={"access_token": "a\r\nb: c"}), UnreadableAnswer),
        (lambda: httpx.Response(200, content=b" " * 70_000), UnreadableAnswer),
        (lambda: (_ for _ in ()).throw(httpx.ConnectError("no route")), Unreachable),
        (lambda: (_ for _ in ()).throw(httpx.ReadTimeout("silence")), DeadlinePassed),
    ],
)
async def test_a_failing_server_is_an_error_and_makes_nobody_a_guest(
    server: Server, answer: Callable[[], httpx.Response], error: type[TciafsError]
) -> None:
    server.answer = answer
    tokens = session(server, User(PASSWORD))
    with pytest.raises(error) as caught:
        await tokens.token()
    assert "pa55word" not in shown(caught.value)
    server.answer = None
    assert await tokens.token() == "access-1"


def shown(error: BaseException | None) -> str:
    """Return all that a traceback could show of an error, and of what led to it."""
    texts = []
    while error is not None:
        texts += [repr(error), str(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return " ".join(texts)


async def test_who_waited_shares_a_failure(server: Server) -> None:
    server.open, server.answer = trio.Event(), lambda: httpx.Response(500)
    tokens, failures = session(server, User(KEPT)), list[TciafsError]()

    async def need() -> None:
        try:
            await tokens.token()
        except TciafsError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(need)
        await wait_all_tasks_blocked()
        server.open.set()
    assert (len(failures), len(server.asked)) == (5, 1)


async def test_a_server_that_never_answers_is_given_up(server: Server, autojump_clock: MockClock) -> None:
    server.open = trio.Event()
    with pytest.raises(DeadlinePassed, match="did not answer a login within 60 s"):
        await session(server, User(KEPT)).token()


# Secrets


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


async def test_secrets_are_in_no_repr_and_no_log(server: Server, all_logs: pytest.LogCaptureFixture) -> None:
    login = replace(PASSWORD, refresh_token=Secret("refresh-0"))
    tokens = session(server, User(login))
    await tokens.token()
    text = repr(login) + repr(tokens) + repr(vars(tokens)) + all_logs.text
    assert not [secret for secret in ("pa55word", "refresh-", "access-") if secret in text]


@pytest.mark.parametrize(
    "services", [URL, URL + "/", URL + "/v4", "https://archive.example/nbia-api/services/v1/"]
)
def test_tokens_are_given_beside_the_services(services: str) -> None:
    assert token_url(services) == "https://archive.example/nbia-api/oauth/token"


@pytest.mark.parametrize("url", ["http://archive.example/nbia-api/services", "http://10.0.0.1/services"])
async def test_a_login_never_crosses_a_network_in_the_clear(url: str) -> None:
    with pytest.raises(Misuse, match="by https only"):
        await ask_for_tokens(url, PASSWORD, HttpLimits())


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:8042/services", "http://localhost/services"])
def test_on_this_machine_it_may(url: str) -> None:
    require_encrypted(url)
