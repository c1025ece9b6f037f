"""What goes wrong between a mount and its server: connections, certificates, proxies, redirects, names."""

import base64
import datetime as dt
import errno
import io
import os
import signal
import ssl
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tciafs.control.client import ask_refresh
from tests.behaviour.retriever import ExpectedSeries, expected_series
from tests.filesystem.seen import BRIEF, FORGETS, Record, Seen, note, program, warm_up
from tests.mounting import Mount, mounted
from tests.relay import Proxy, Relay
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

FOLDER = "Transfer-Syntaxes"
UNREACHABLE = errno.EHOSTUNREACH
ONCE = (*BRIEF, "--retries", "0", "--read-ahead", "0")


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", "20", "--login", "ada:pa55") as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    yield _archive
    _archive.clear_faults()


@pytest.fixture(scope="module")
def untouched(_archive: RunningSample) -> list[ExpectedSeries]:
    return expected_series(_archive, "MANYSERIES")


def sentence_of(folder: Path) -> str:
    return os.getxattr(folder, "user.tciafs.error").decode()


# -- connections --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def relay(_archive: RunningSample) -> Iterator[Relay]:
    with Relay(_archive.url) as relay:
        yield relay


@pytest.fixture(scope="module")
def mount(relay: Relay) -> Iterator[Mount]:
    with mounted(relay.url, *ONCE, command=FORGETS) as mount:
        warm_up(mount)
        os.listdir(mount.path / "MANYSERIES")
        yield mount


def both(mount: Mount, series: ExpectedSeries, scratch: Path) -> dict[str, Seen]:
    """Let `ls` list a folder that nobody has listed, and `cat` read an image that nobody has read."""
    return {
        "ls of patients": program("ls", mount.path / FOLDER, "", scratch),
        "cat of an image": program("cat", mount.path / series.path, "1-1.dcm", scratch),
    }


def known(mount: Mount, untouched: list[ExpectedSeries]) -> ExpectedSeries:
    """Return a series that can be entered without a question, but was not fetched."""
    series = untouched.pop()
    (mount.path / series.path).stat()
    return series


def test_connections_that_are_refused_until_they_are_not(
    relay: Relay, mount: Mount, untouched: list[ExpectedSeries], tmp_path: Path, record_property: Record
) -> None:
    series, cached = known(mount, untouched), next((mount.path / "Phantom-Mammography").rglob("*.dcm"))
    expected = cached.read_bytes()
    relay.refuse()
    seen = both(mount, series, tmp_path)
    assert {came.errno for came in seen.values()} == {UNREACHABLE}
    assert "could not be reached" in sentence_of(mount.path / FOLDER)
    assert "could not be reached" in sentence_of(mount.path / series.path)
    assert cached.read_bytes() == expected
    relay.listen()
    assert {came.errno for came in both(mount, series, tmp_path).values()} == {0}
    note(record_property, "patients, series", "connection refused", "nobody listens", seen, "nothing")


def test_connections_that_are_reset(
    relay: Relay, mount: Mount, untouched: list[ExpectedSeries], tmp_path: Path, record_property: Record
) -> None:
    series = known(mount, untouched)
    relay.hang_up()
    relay.reset_after_bytes = 100
    try:
        seen = {"cat of an image": program("cat", mount.path / series.path, "1-1.dcm", tmp_path)}
        seen["ls of patients"] = program("ls", mount.path / "Phantom-Head", "", tmp_path)
    finally:
        relay.reset_after_bytes = None
    assert {name: came.errno for name, came in seen.items()} == dict.fromkeys(seen, UNREACHABLE)
    for folder in (series.path, "Phantom-Head"):
        assert "the connection" in sentence_of(mount.path / folder)
    assert program("cat", mount.path / series.path, "1-1.dcm", tmp_path).errno == 0
    note(record_property, "patients, series", "connection reset", "RST after 100 bytes", seen, "nothing")


def test_connections_that_died_meanwhile_are_replaced_without_a_word(
    relay: Relay, mount: Mount, untouched: list[ExpectedSeries], tmp_path: Path, record_property: Record
) -> None:
    series = known(mount, untouched)
    os.listdir(mount.path / "Phantom-Head")
    relay.hang_up()
    seen = {"cat of an image": program("cat", mount.path / series.path, "1-1.dcm", tmp_path)}
    seen["ls of patients"] = program("ls", mount.path / "Phantom-Brain-MR", "", tmp_path)
    assert {came.errno for came in seen.values()} == {0}
    note(record_property, "patients, series", "kept connections died", "all hung up", seen, "the series")


def test_a_server_that_is_frozen_delays_only_what_is_not_here(
    sample: RunningSample,
    mount: Mount,
    untouched: list[ExpectedSeries],
    tmp_path: Path,
    record_property: Record,
) -> None:
    series, cached = known(mount, untouched), next((mount.path / "Phantom-Mammography").rglob("*.dcm"))
    sample.process.send_signal(signal.SIGSTOP)
    try:
        seen = both(mount, series, tmp_path) | {"cp": program("cp", cached.parent, "", tmp_path)}
    finally:
        sample.process.send_signal(signal.SIGCONT)
    assert [came.errno for came in seen.values()] in (
        [0, errno.ETIMEDOUT, 0],  # the patients are known from an earlier test
        [errno.ETIMEDOUT, errno.ETIMEDOUT, 0],
    )
    assert program("cat", mount.path / series.path, "1-1.dcm", tmp_path).errno == 0
    note(record_property, "series", "server frozen", "SIGSTOP", seen, "what was there")


def test_a_name_that_is_not_known(tmp_path: Path, record_property: Record) -> None:
    with mounted("http://archive.invalid/nbia-api/services", *ONCE) as mount:
        assert "the archive is not available (archive.invalid could not be reached" in mount.message
        seen = {"ls of collections": program("ls", mount.path, "", tmp_path)}
        assert seen["ls of collections"].errno == UNREACHABLE
        assert "archive.invalid could not be reached" in sentence_of(mount.path)
    note(record_property, "collections", "DNS failure", "a name in .invalid", seen, "nothing")


# -- certificates -------------------------------------------------------------------------------------


def tls_of(
    authority: trustme.CA, name: str = "127.0.0.1", not_after: dt.datetime | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_after=not_after).configure_cert(context)
    return context


def test_certificates(
    sample: RunningSample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
) -> None:
    ours, others = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ours.pem"))
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    untrusted = {
        "of an unknown authority": (tls_of(others), "unable to get local issuer certificate"),
        "expired": (tls_of(ours, not_after=yesterday), "certificate has expired"),
        "of another host": (tls_of(ours, "archive.example"), "mismatch"),
    }
    good = tls_of(ours)
    with Relay(sample.url) as relay:
        relay.tls = good
        with mounted(relay.url, *ONCE, command=FORGETS) as mount:
            warm_up(mount)
            (series, *_) = expected_series(sample, "Phantom-Head")
            (mount.path / series.path).stat()
            for what, (tls, says) in untrusted.items():
                relay.tls = tls
                relay.hang_up()
                seen = both(mount, series, tmp_path)
                assert {came.errno for came in seen.values()} == {UNREACHABLE}
                for folder in (FOLDER, series.path):
                    assert "is not trusted" in sentence_of(mount.path / folder)
                    assert says in sentence_of(mount.path / folder)
                note(record_property, "patients, series", f"certificate {what}", "TLS relay", seen, "nothing")
            relay.tls = good
            assert {came.errno for came in both(mount, series, tmp_path).values()} == {0}


# -- proxies ------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy.running() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        yield proxy


PROXY_REFUSALS = {
    "refuses": (403, errno.EACCES, "status 403"),
    "asks for a user": (407, UNREACHABLE, "the proxy"),
    "fails": (502, UNREACHABLE, "status 502"),
}


def test_a_proxy(sample: RunningSample, proxy: Proxy, tmp_path: Path, record_property: Record) -> None:
    (series, *_) = expected_series(sample, "Phantom-Head")
    with mounted(sample.url, *ONCE, command=FORGETS) as mount:
        warm_up(mount)
        (mount.path / series.path).stat()
        for what, (status, number, says) in PROXY_REFUSALS.items():
            proxy.refuses_with = status
            seen = both(mount, series, tmp_path)
            assert {came.errno for came in seen.values()} == {number}
            for folder in (FOLDER, series.path):
                assert says in sentence_of(mount.path / folder)
            note(record_property, "patients, series", f"HTTP proxy that {what}", f"{status}", seen, "nothing")
        proxy.refuses_with = None
        seen = both(mount, series, tmp_path)
        assert {came.errno for came in seen.values()} == {0}
        assert any("/getImage" in asked for asked in proxy.asked)
        note(record_property, "patients, series", "HTTP proxy", "lets through", seen, "the series")


def test_a_proxy_before_an_encrypted_server(
    sample: RunningSample,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ours.pem"))
    secret = "pr0xy-pa55"
    monkeypatch.setenv("https_proxy", proxy.url.replace("//", f"//eve:{secret}@"))
    proxy.user = base64.b64encode(f"eve:{secret}".encode()).decode()
    (series, *_) = expected_series(sample, "Phantom-Head")
    with Relay(sample.url) as relay:
        relay.tls = tls_of(authority)
        with mounted(relay.url, *ONCE, command=FORGETS) as mount:
            warm_up(mount)
            (mount.path / series.path).stat()
            proxy.user = "somebody else"
            relay.hang_up()
            refused = both(mount, series, tmp_path)
            assert {came.errno for came in refused.values()} == {UNREACHABLE}
            for folder in (FOLDER, series.path):
                assert "the proxy" in sentence_of(mount.path / folder)
            proxy.user = base64.b64encode(f"eve:{secret}".encode()).decode()
            seen = both(mount, series, tmp_path)
            assert {came.errno for came in seen.values()} == {0}
            assert secret not in mount.log()
    note(record_property, "patients, series", "proxy refuses a password", "CONNECT: 407", refused, "nothing")
    note(record_property, "patients, series", "proxy with a password", "CONNECT", seen, "the series")


# -- redirects, and odd servers -----------------------------------------------------------------------


def test_a_token_does_not_follow_a_redirect_to_another_host(
    sample: RunningSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("pa55")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with Relay(sample.url) as home, Relay(sample.url) as elsewhere:
        login = ("--user", "ada", "--password-file", str(password))
        with mounted(home.url, *ONCE, *login) as mount:
            assert "Limited-Access" in os.listdir(mount.path)
            target = f"{elsewhere.url}/v4/getPatient?Collection={FOLDER}"
            sample.fault("status", "getPatient", code=302, headers={"Location": target})
            seen = {"ls of patients": program("ls", mount.path / FOLDER, "", tmp_path)}
            assert seen["ls of patients"].errno == 0
    sent = b"".join(elsewhere.heads)
    assert b"getPatient" in sent
    assert b"authorization" not in sent.lower()
    assert b"authorization: bearer" in b"".join(home.heads).lower()
    note(record_property, "patients", "redirect to another host", "302, as a user", seen, "the listing")


def test_a_server_that_speaks_version_1_only(tmp_path: Path, record_property: Record) -> None:
    with running_sample("--api", "v1") as sample, mounted(sample.url, *ONCE) as mount:
        folder = next((mount.path / "Phantom-Mammography").rglob("*.dcm")).parent
        seen = {name: program(name, folder, "1-1.dcm", tmp_path) for name in ("ls", "cat", "cp")}
        assert {came.errno for came in seen.values()} == {0}
        uid = os.getxattr(folder, "user.tcia.SeriesInstanceUID").decode()
        answer = sample.get("v1/getImage", SeriesInstanceUID=uid)
        assert seen["cat"].output in _contents(answer.content)
    note(record_property, "series", "v1 only", "--api v1", seen, "the series")


def _contents(zipped: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def test_nothing_where_rows_were_takes_nothing_away(
    sample: RunningSample, mount: Mount, tmp_path: Path, record_property: Record
) -> None:
    folder = mount.path / "Phantom-Echo-NC"
    before = os.listdir(folder)
    sample.fault("empty", "getPatient", times=9)
    ask_refresh(mount.path, "Phantom-Echo-NC")
    seen = program("ls", folder, "", tmp_path)
    assert seen.output.decode().split() == before
    assert "keeping them until it says so again" in mount.log()
    note(record_property, "patients", "nothing where rows were", "empty 200", {"ls": seen}, "the listing")
