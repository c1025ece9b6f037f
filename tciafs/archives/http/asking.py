"""What goes out to a server: addresses that can work, clients that are set up alike, and what is asked.

No I/O but the certificates: a client is made here and used by `http`.
"""

import errno
import logging
import os
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlencode

import httpx

from tciafs.archives.http.limits import HttpLimits
from tciafs.errors import Misuse, TciafsError

__all__ = ["AT_ONCE", "Asking", "Span", "checked_url", "open_client", "read_certificates_ahead", "tls"]

NO_MEMORY = (errno.ENOMEM, 256 | 0xC0000, 0)
"""How it is said that there is no memory: by the system, by OpenSSL (ERR_R_MALLOC_FAILURE, err.h), and by an
OpenSSL that has not even the memory to note why it failed.
"""

AT_ONCE = "tciafs.at_once"
"""An extension of requests: whoever asks wants the body as a whole, and bounds the time it may take."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a body: the bytes from `first` on, `size_bytes` of them or up to its end (RFC 9110, section
    14). Of a body of `etag`, if that is not None, and of no other (section 13.1.1).
    """

    first: int
    size_bytes: int | None = None
    etag: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the request says."""
        last = "" if self.size_bytes is None else self.first + self.size_bytes - 1
        asked = {"Range": f"bytes={self.first}-{last}"}
        return asked if self.etag is None else {**asked, "If-Match": f'"{self.etag}"'}

    def behind(self, size_bytes: int) -> "Span":
        """Return what is left of it behind so many bytes."""
        left_bytes = None if self.size_bytes is None else self.size_bytes - size_bytes
        return Span(self.first + size_bytes, left_bytes, self.etag)

    def is_in(self, status: int, headers: "Headers") -> bool:
        """Return whether an answer is that part, and not the whole or another one."""
        said = headers.get("Content-Range", "")
        return status == httpx.codes.PARTIAL_CONTENT and said.startswith(f"bytes {self.first}-")

    def is_of_another(self, status: int, headers: "Headers") -> bool:
        """Return whether an answer is of another body than was meant: of another ETag, or of none."""
        if self.etag is None:
            return False
        if status == httpx.codes.PRECONDITION_FAILED:
            return True
        return httpx.codes.is_success(status) and headers.get("ETag", "").strip('"').lower() != self.etag

    def is_all_of(self, status: int, headers: "Headers") -> bool:
        """Return whether an answer is that part, of that body."""
        return self.is_in(status, headers) and not self.is_of_another(status, headers)


class Headers(Protocol):
    """Headers of an answer, by names that may be written either way."""

    def get(self, name: str, default: str, /) -> str:
        """Return what a header says."""
        ...


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked, whoever asks; with a `form` by POST."""

    path: str
    params: Mapping[str, str]
    encoding: str
    form: Mapping[str, str] | None
    span: Span | None = None

    def __str__(self) -> str:
        """Return it for the log: what an archive is asked is no secret, and who asks is not told."""
        if self.form is not None:
            return f"POST {self.path}"
        query = urlencode(self.params)
        return f"GET {self.path}?{query}" if query else f"GET {self.path}"

    def tell(self, log: logging.Logger, host: str, status: int) -> None:
        """Log how it was answered; images that come one by one are too many to be read by somebody."""
        level = logging.INFO if self.span is None else logging.DEBUG
        log.log(level, "%s answered %s with status %d", host, self, status)

    def request(self, client: httpx.AsyncClient, token: str | None) -> httpx.Request:
        """Return the request that asks it, of a user with a token or of a guest."""
        headers = {"Accept-Encoding": self.encoding}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if self.span is not None:
            headers |= self.span.headers
        method, data = ("GET", None) if self.form is None else ("POST", dict(self.form))
        return client.build_request(
            method,
            self.path,
            params=dict(self.params),
            headers=headers,
            data=data,
            extensions={AT_ONCE: self.span is not None},
        )


def checked_url(url: str) -> httpx.URL:
    """Return `url` without a final slash; raise Misuse where no request could go there.

    A user name or password inside the address is refused: addresses end up in logs.
    """
    try:
        parsed = httpx.URL(url.strip().rstrip("/"))
        parsed.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Misuse("the archive's address cannot be read as a URL") from error
    if parsed.userinfo:
        raise Misuse("the archive's address must not contain a user name or password")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Misuse(f"the archive's address must begin with https:// or http://, not {url!r}")
    if parsed.query or parsed.fragment:
        raise Misuse("the archive's address must end before any ? or #")
    return parsed


def tls() -> ssl.SSLContext:
    """Return what verifies servers, by SSL_CERT_FILE and SSL_CERT_DIR; one for all that ask under the same.

    To read the certificates takes 30 to 100 ms; who comes while another thread does so waits for it. Raises
    OSError where they cannot be used, MemoryError.
    """
    with _READING:
        return _tls_by(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


_READING = threading.Lock()


def read_certificates_ahead() -> threading.Thread:
    """Have a thread read the certificates while this one goes on: OpenSSL holds no lock of Python.

    What is wrong with them is not said here but to whoever needs them, who tries once more. Returns the
    thread, which need not be waited for.
    """

    def read() -> None:
        with suppress(OSError, MemoryError):
            tls()

    reading = threading.Thread(target=read, name="certificates", daemon=True)
    with suppress(RuntimeError):  # no more threads can be had, so they are read when they are needed
        reading.start()
    return reading


@lru_cache(maxsize=4)
def _tls_by(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        if error.errno in NO_MEMORY:  # which is nothing that a user has set wrong
            raise MemoryError("there is no memory for the certificates") from error
        raise


def open_client(
    url: httpx.URL,
    limits: HttpLimits,
    user_agent: str,
    transport: httpx.AsyncBaseTransport | None,
    mounts: Mapping[str, httpx.AsyncBaseTransport] | None = None,
) -> httpx.AsyncClient:
    """Return a client of one server, without redirects.

    Raises Misuse for what the environment has wrong, TciafsError where certificates cannot be read at all.
    """
    timeout = httpx.Timeout(
        connect=limits.connect_timeout_s,
        read=limits.stall_timeout_s,
        write=limits.write_timeout_s,
        pool=limits.pool_timeout_s,
    )
    pool = httpx.Limits(max_connections=None, max_keepalive_connections=limits.connections)
    try:
        return httpx.AsyncClient(
            base_url=url,
            verify=tls(),
            headers={"User-Agent": user_agent},
            timeout=timeout,
            limits=pool,
            follow_redirects=False,
            transport=transport,
            mounts=mounts,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise Misuse("a proxy in the environment (HTTPS_PROXY ...) cannot be used") from error
    except OSError as error:
        raise _unusable_certificates(error) from error


def _unusable_certificates(error: OSError) -> TciafsError:
    """Return whose mistake it is; without memory OpenSSL says this and that, which is nobody's."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return Misuse("SSL_CERT_FILE or SSL_CERT_DIR cannot be used as certificates")
    return TciafsError(f"the certificates that come with Python's certifi cannot be read: {error.strerror}")
