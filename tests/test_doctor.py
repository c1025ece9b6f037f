"""The doctor: each thing that can be wrong is named, with what to do about it."""

import datetime as dt
import json
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import cast

import pytest
import trustme

from tciafs import doctor
from tciafs.doctor import Finding, findings
from tciafs.filesystem import mountpoint
from tciafs.settings import Settings
from tests.mounting import program
from tests.sample.running import RunningSample, running_sample

Found = dict[str, Finding]
Examine = Callable[..., Awaitable[Found]]


@pytest.fixture(scope="module")
def sample() -> Iterator[RunningSample]:
    with running_sample("--login", "ada:secret") as sample:
        yield sample


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    async def examine(url: str = "", **settings: object) -> Found:
        given = {"cache_dir": tmp_path / "cache", "url": url} | settings
        return {each.what: each async for each in findings(Settings(**given))}  # type: ignore[arg-type]

    return examine


async def test_where_all_is_well_nothing_is_to_be_done(examine: Examine, sample: RunningSample) -> None:
    found = await examine(sample.url)
    assert [each for each in found.values() if not each.is_good] == []
    assert {"FUSE", "pyfuse3", "cache folder", "name", "archive", "clock", "login"} == found.keys()
    assert "asked as a guest" in found["login"].said


async def test_the_sample_needs_no_network(examine: Examine) -> None:
    found = await examine(archive="sample")
    assert {"FUSE", "pyfuse3", "cache folder", "archive"} == found.keys()


# FUSE


async def test_no_fuse(examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", tmp_path / "fuse")
    fuse = (await examine(archive="sample"))["FUSE"]
    assert fuse.said == f"{tmp_path}/fuse is not there"
    assert "modprobe fuse" in fuse.remedy


async def test_no_fusermount3(examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    fuse = (await examine(archive="sample"))["FUSE"]
    assert (fuse.said, fuse.remedy) == (
        "fusermount3 is missing",
        "install it with: apt-get install fuse3",
    )


async def test_no_library(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libfuse3.so.3: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", fail)
    assert "libfuse3.so.3" in (await examine(archive="sample"))["pyfuse3"].said


@pytest.mark.parametrize(("line", "is_good"), [("user_allow_other", True), ("#user_allow_other", False)])
async def test_other_users(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, is_good: bool
) -> None:
    (tmp_path / "fuse.conf").write_text(f"# FUSE\n{line}\n")
    monkeypatch.setattr(doctor, "FUSE_CONF", tmp_path / "fuse.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = await examine(archive="sample", allow_other=True)
    assert found["allow_other"].is_good == is_good


# The cache folder


async def test_a_cache_folder_that_cannot_be_written(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = (await examine(archive="sample", cache_dir=tmp_path / "file" / "cache"))["cache folder"]
    assert folder.said == f"{tmp_path}/file/cache cannot be written: Not a directory"
    assert folder.remedy == "choose another with --cache-dir"


async def test_a_cache_folder_on_a_network(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_file_system_of", lambda folder: "nfs")
    assert "is on a network file system (nfs)" in (await examine(archive="sample"))["cache folder"].said


async def test_looking_leaves_nothing_behind(examine: Examine, tmp_path: Path) -> None:
    await examine(archive="sample")
    assert list(tmp_path.iterdir()) == []


# The way to the archive


async def test_a_name_that_is_not_known(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("trio.socket.getaddrinfo", unknown)
    found = await examine("https://archive.invalid/nbia-api/services")
    assert found["name"].said == "the name archive.invalid is not known: Name or service not known"
    assert "DNS" in found["name"].remedy
    assert "archive" not in found


async def test_nobody_listens(examine: Examine) -> None:
    found = await examine(f"http://127.0.0.1:{_free_port()}/services")
    assert "could not be reached" in found["archive"].said
    assert not found["archive"].is_good


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server(HTTPServer):
    """Answers every request with a status and a date."""

    status = 200
    date: dt.datetime | None = None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        self.send_response_only(server.status)
        if server.date is not None:
            self.send_header("Date", f"{server.date:%a, %d %b %Y %H:%M:%S GMT}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_CONNECT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(
    status: int = 200, date: dt.datetime | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve on loopback; yields host and port."""
    server = Server(("127.0.0.1", 0), Handler)
    server.status, server.date = status, date
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "remedy"), [(500, "fails at the moment"), (404, "check --url")])
async def test_a_server_that_answers_otherwise(examine: Examine, status: int, remedy: str) -> None:
    with answering(status) as place:
        archive = (await examine(f"http://{place}/services"))["archive"]
    assert archive.said.startswith(f"answers with status {status} after ")
    assert remedy in archive.remedy


async def test_an_older_server_is_all_right(examine: Examine) -> None:
    with running_sample("--api", "v1") as old:
        assert (await examine(old.url))["archive"].is_good


@pytest.mark.parametrize(
    ("hours", "said"),
    [(-30, "is 1 day, 6:00:0. ahead of"), (2, "is (2:00:00|1:59:5.) behind"), (0, "agrees")],
)
async def test_a_clock_that_is_wrong(examine: Examine, hours: int, said: str) -> None:
    there = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
    with answering(date=there) as place:
        clock = (await examine(f"http://{place}/services"))["clock"]
    assert re.match(said, clock.said)
    assert clock.is_good == (hours == 0)


async def test_a_certificate_that_nobody_knows(examine: Examine) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with answering(tls=tls) as place:
        archive = (await examine(f"https://{place}/services"))["archive"]
    assert "certificate of 127.0.0.1 is not trusted" in archive.said
    assert "ask those who run it for its certificate" in archive.remedy


@pytest.mark.parametrize("status", [403, 407, None])
async def test_a_proxy_that_refuses(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    with answering(status or 200) as place:
        proxy = place if status is not None else f"127.0.0.1:{_free_port()}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{proxy}")
        found = await examine("https://archive.example/nbia-api/services")
    assert found["proxy"].said == f"http://{proxy}, as the environment says"
    assert f"check the proxy http://{proxy}" in found["archive"].remedy
    assert "secret" not in "".join(each.said + each.remedy for each in found.values())
    assert "name" not in found  # which the proxy alone need know


# The login


@pytest.mark.parametrize(
    ("password", "said"), [("wrong", "refused the login"), ("secret", "ada is logged in")]
)
async def test_credentials(
    examine: Examine, sample: RunningSample, tmp_path: Path, password: str, said: str
) -> None:
    file = tmp_path / "password"
    file.touch(0o600)
    file.write_text(password)
    login = (await examine(sample.url, user="ada", password_file=file))["login"]
    assert (said in login.said, login.is_good) == (True, password == "secret")


# The command


def test_the_command_says_it_line_by_line(sample: RunningSample, tmp_path: Path) -> None:
    good = program("doctor", "--url", sample.url, "--cache-dir", tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert all(line.startswith("ok    ") for line in good.stdout.splitlines())
    (tmp_path / "file").touch()
    bad = program("doctor", "--url", sample.url, "--cache-dir", tmp_path / "file" / "cache")
    assert bad.returncode == 1
    assert "FAIL  cache folder" in bad.stdout
    assert "\n                    choose another with --cache-dir\n" in bad.stdout
    script = program("doctor", "--json", "--url", sample.url, "--cache-dir", tmp_path / "file" / "cache")
    found = {each["what"]: each for each in map(json.loads, script.stdout.splitlines())}
    assert script.returncode == 1
    assert (found["cache folder"]["ok"], found["cache folder"]["remedy"]) == (
        False,
        "choose another with --cache-dir",
    )


async def test_without_an_index_of_the_idc_it_says_how_to_get_it_and_that_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    async with aclosing(cast(AsyncGenerator[Finding], findings(Settings(cache_dir=tmp_path)))) as looking:
        async for finding in looking:
            if finding.what == "index":  # and what comes behind it would ask TCIA
                break
    assert finding.is_good
    assert finding.said == (
        "of the Imaging Data Commons: not installed, so NBIA is alone (pip install idc-index-data duckdb)"
    )
