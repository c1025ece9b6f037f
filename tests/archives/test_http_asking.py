"""What goes out to a server, as the log tells it, and clients that cannot be set up."""

import errno
import logging
import ssl

import httpx
import pytest

from tciafs.archives.http.asking import Asking, Span, open_client
from tciafs.archives.http.limits import HttpLimits

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
