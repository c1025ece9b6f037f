"""What goes out to a server, as the log tells it, and clients that cannot be set up; certificates."""

import errno
import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tciafs.archives.http import asking as asking_module
from tciafs.archives.http.asking import Asking, Span, open_client, read_certificates_ahead, tls
from tciafs.archives.http.limits import HttpLimits
from tciafs.errors import Misuse, TciafsError

Certificates = Callable[[Callable[[], None]], list[int]]

LOG = logging.getLogger("tciafs.archives.http.client")


@pytest.mark.parametrize(
    ("asking", "said"),
    [
        (
            Asking("v4/getSeries", {"Collection": "CT Nodes"}, "gzip", None),
            "GET v4/getSeries?Collection=CT+Nodes",
        ),
        (Asking("v4/getMD5Hierarchy", {}, "gzip", {"SeriesInstanceUID": "1.2"}), "POST v4/getMD5Hierarchy"),
        (Asking("bucket/key", {}, "identity", None), "GET bucket/key"),
        (Asking("x", {"Collection": "a\nERROR b"}, "gzip", None), "GET x?Collection=a%0AERROR+b"),
    ],
)
def test_what_was_asked_is_a_line_of_the_log(
    asking: Asking, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=LOG.name)
    asking.tell(LOG, "example.org", 200)
    assert caplog.messages == [f"example.org answered {said} with status 200"]


def test_images_one_by_one_are_told_only_who_wants_to_know_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=LOG.name)
    Asking("bucket/1.dcm", {}, "identity", None, Span(0, 10)).tell(LOG, "example.org", 206)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


async def test_no_token_is_in_it() -> None:
    asking = Asking("v4/getSeries", {}, "gzip", None)
    async with httpx.AsyncClient(base_url="https://example.org") as client:
        assert asking.request(client, "s3cret").headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in str(asking) + repr(asking)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ssl.SSLError(786688, "[CRYPTO] malloc failure (_ssl.c:3098)"),
        ssl.SSLError(0, "unknown error (_ssl.c:3063)"),
    ],
    ids=["system", "OpenSSL", "unknown"],
)
def test_a_process_without_memory_for_certificates_is_not_told_to_look_at_its_settings(
    monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    def fail() -> ssl.SSLContext:
        raise failure

    monkeypatch.setattr(httpx, "create_ssl_context", fail)
    monkeypatch.setenv("SSL_CERT_DIR", f"/certificates/{failure}")  # there is one context for each
    with pytest.raises(MemoryError):
        open_client(httpx.URL("http://127.0.0.1"), HttpLimits(), "tests", None)


def test_nobody_who_has_set_nothing_is_told_to_look_at_his_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> ssl.SSLContext:
        raise OSError(errno.EINVAL, "Invalid argument")  # as OpenSSL was seen to say, too, without memory

    asking_module._tls_by.cache_clear()
    monkeypatch.setattr(httpx, "create_ssl_context", fail)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TciafsError, match=r"come with Python's certifi .*: Invalid argument") as refused:
        open_client(httpx.URL("http://127.0.0.1"), HttpLimits(), "tests", None)
    assert type(refused.value) is TciafsError
    assert "SSL_CERT" not in str(refused.value)


# Certificates that are read while something else is done


@pytest.fixture
def certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Certificates:
    """Have something else done where certificates are read; what it returns has an entry for each reading."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # there is one context for each

    def replaced(reading: Callable[[], None]) -> list[int]:
        readings: list[int] = []

        def create() -> ssl.SSLContext:
            readings.append(threading.get_ident())
            reading()
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        monkeypatch.setattr(httpx, "create_ssl_context", create)
        return readings

    return replaced


def test_who_needs_the_certificates_waits_for_the_thread_that_reads_them(
    certificates: Certificates,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        assert may_end.wait(60)

    readings = certificates(read)
    ahead = read_certificates_ahead()
    assert begun.wait(60)
    contexts: list[ssl.SSLContext] = []
    asker = threading.Thread(target=lambda: contexts.append(tls()))
    asker.start()
    may_end.set()
    asker.join()
    ahead.join()
    assert contexts == [tls()]
    assert readings == [ahead.ident]


def test_what_is_wrong_with_certificates_is_said_to_who_needs_them(
    certificates: Certificates,
) -> None:
    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    readings = certificates(fail)
    read_certificates_ahead().join()
    with pytest.raises(Misuse, match="SSL_CERT_FILE or SSL_CERT_DIR cannot be used as certificates"):
        open_client(httpx.URL("http://127.0.0.1"), HttpLimits(), "tests", None)
    assert len(readings) == 2


def test_without_a_thread_to_be_had_they_are_read_when_they_are_needed(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    readings = certificates(lambda: None)
    monkeypatch.setattr(threading.Thread, "start", start)
    read_certificates_ahead()
    assert readings == []
    assert tls() is tls()
    assert len(readings) == 1
