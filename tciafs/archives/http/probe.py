"""One look at a server, for who wants to know why nothing works: the name, the way, the answer, the clock.

Asks once, without a login and without retries; follows no redirect. Defined here and only here: what is
looked at.
"""

import datetime as dt
import email.utils
import socket
import urllib.request
from dataclasses import dataclass

import httpx
import trio

from tciafs.archives.http.client import USER_AGENT, checked_url
from tciafs.archives.http.errors import ABSENT, FOREIGN, translate
from tciafs.archives.http.limits import HttpLimits
from tciafs.errors import DeadlinePassed, Unreachable

__all__ = ["Answer", "addresses_of", "ask_once", "proxy_for"]

NAME_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: the status, after how many seconds, and what time it has (None: not said)."""

    status: int
    took_s: float
    server_time: dt.datetime | None


def proxy_for(url: str) -> str | None:
    """Return the proxy through which the environment has an address asked, without a password; None: none."""
    parsed = checked_url(url)
    if urllib.request.proxy_bypass(parsed.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parsed.scheme) or proxies.get("all")
    if not proxy:
        return None
    return str(httpx.URL(proxy).copy_with(username=None, password=None))


async def addresses_of(url: str) -> list[str]:
    """Return the addresses that the name of a server has. Raises Unreachable, DeadlinePassed."""
    host = checked_url(url).host
    try:
        with trio.fail_after(NAME_TIMEOUT_S):
            found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except trio.TooSlowError:
        raise DeadlinePassed(f"nobody said within {NAME_TIMEOUT_S:g} s what address {host} has") from None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise Unreachable(f"the name {host} is not known: {reason}") from error
    return sorted({str(address[0]) for *_, address in found})


async def ask_once(url: str, limits: HttpLimits, question: str | None = None) -> Answer:
    """Return how the archive at an address answers a question, None: the one of NBIA for its collections.

    Raises what a request raises where there is no answer at all: Unreachable or DeadlinePassed, with the
    reason in words.
    """
    address = checked_url(url)
    timeout = httpx.Timeout(limits.stall_timeout_s, connect=limits.connect_timeout_s)
    versions = [""] if address.path.endswith(("/v1", "/v4")) else ["v4/", "v1/"]
    try:
        async with httpx.AsyncClient(timeout=timeout, headers={"User-Agent": USER_AGENT}) as client:
            if question is not None:
                return await _asked(client, f"{address}/{question}")
            answer = await _asked(client, f"{address}/{versions[0]}getCollectionValues")
            if answer.status in ABSENT and len(versions) > 1:
                answer = await _asked(client, f"{address}/{versions[1]}getCollectionValues")
            return answer
    except FOREIGN as error:
        raise translate(error, address.host, "getCollectionValues") from error


async def _asked(client: httpx.AsyncClient, question: str) -> Answer:
    begun = trio.current_time()
    async with client.stream("GET", question) as response:
        server_time = _time_in(response.headers.get("Date", ""))
        return Answer(response.status_code, trio.current_time() - begun, server_time)


def _time_in(text: str) -> dt.datetime | None:
    try:
        return email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
