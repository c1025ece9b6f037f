"""Who gets to see the page and who does not; what it says when daemons do not answer."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from tciafs.control.known_values import KnownFolder, KnownPage, LocatedImage
from tciafs.control.values import Status
from tciafs.errors import NoDaemon, NoSuchName
from tciafs.web import server
from tciafs.web.server import serve_page
from tests.test_watch_view import STATUS
from tests.web.test_pictures import RAMP, encoded, image

MOUNT = Path("/mnt/tcia")
SERIES = KnownFolder("1.0-x", 1, 1, 100, 1, 4096, "local", "1.2.3", "CT")


class Daemon:
    """Answers as the daemon of a mount; `asked` is what it was asked."""

    def __init__(self, pack: Path) -> None:
        self.located = LocatedImage(str(pack), 0, 0, "1-1.dcm", 0, 1)
        self.asked: list[tuple[object, ...]] = []
        self.is_dead = False
        self.series = SERIES

    def status(self, mount: Path) -> Status:
        if self.is_dead:
            raise NoDaemon("the daemon is dead")
        return STATUS

    def known(self, mount: Path, path: str, after: str) -> KnownPage:
        self.asked.append(("known", path, after))
        if self.is_dead:
            raise NoDaemon("the daemon is dead")
        return KnownPage((self.series,), 1, None)

    def locate(self, mount: Path, series_uid: str, image: int | None) -> LocatedImage:
        self.asked.append(("locate", series_uid, image))
        if series_uid != "1.2.3":
            raise NoSuchName("it is not in the cache")
        return self.located


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Daemon:
    pack = tmp_path / "pack"
    pack.write_bytes(encoded(image(RAMP)))
    daemon = Daemon(pack)
    daemon.located = LocatedImage(str(pack), 0, pack.stat().st_size, "1-1.dcm", 0, 1)
    monkeypatch.setattr(server, "ask_status", daemon.status)
    monkeypatch.setattr(server, "ask_known", daemon.known)
    monkeypatch.setattr(server, "ask_locate", daemon.locate)
    return daemon


@asynccontextmanager
async def served(mounts: Sequence[Path] = (MOUNT,)) -> AsyncIterator[str]:
    """Serve for the length of the block; gives the address."""
    addresses: list[str] = []
    announced = trio.Event()

    def announce(address: str) -> None:
        addresses.append(address)
        announced.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_page, lambda: mounts, announce)
        await announced.wait()
        yield addresses[0]
        nursery.cancel_scope.cancel()


async def get(address: str, method: str = "GET", **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False) as client:
        return await trio.to_thread.run_sync(partial(client.request, method, address, headers=headers))


async def test_the_page_is_for_who_knows_its_address(daemon: Daemon) -> None:
    async with served() as address:
        parts = urlsplit(address)
        assert parts.hostname == "127.0.0.1"
        token = parts.path.strip("/")
        assert len(token) >= 40
        assert (await get(address)).status_code == 200
        root = f"http://{parts.netloc}/"
        wrong = [
            "",
            "x",
            token[:-1],
            token + "x",
            token.swapcase(),
            "page.css",
            "\u00fc",
            "live",
            f"x/{token}/",
        ]
        for path in wrong:
            refused = await get(root + path)
            assert refused.status_code == 403, path
            assert token not in refused.text
        daemon.asked.clear()
        assert (await get(f"{root}x/picture.png?series=1.2.3")).status_code == 403
        assert daemon.asked == []
    async with served() as other:
        assert urlsplit(other).path != parts.path


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "localhost:1", "", "[::1]:80"]
)
async def test_a_name_that_others_gave_this_machine_gets_nothing(host: str, daemon: Daemon) -> None:
    async with served() as address:
        assert (await get(address, Host=host)).status_code == 403
        port = urlsplit(address).port
        assert (await get(address, Host=f"localhost:{port}")).status_code == 200


async def test_the_page_can_only_be_looked_at(daemon: Daemon) -> None:
    async with served() as address:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await get(address, method)).status_code == 405
        assert (await get(address, "HEAD")).status_code == 200


async def test_every_answer_forbids_what_a_browser_could_do_with_it(daemon: Daemon) -> None:
    async with served() as address:
        for path in (
            "",
            "live",
            "page.css",
            "page.js",
            "icon.svg",
            "picture.png?series=1.2.3",
            "nothing",
            "../x",
        ):
            headers = (await get(address + path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "server" not in headers
            assert "access-control-allow-origin" not in headers


async def test_no_page_says_the_token(daemon: Daemon) -> None:
    async with served() as address:
        token = urlsplit(address).path.strip("/")
        for path in ("", "live", "?at=/a/b/c/1.0-x"):
            assert token not in (await get(address + path)).text


async def test_the_picture_of_a_series_on_disk_is_shown(daemon: Daemon) -> None:
    async with served() as address:
        page = await get(address + "?at=/Lung/P1/study/1.0-x")
        assert 'src="picture.png?mount=%2Fmnt%2Ftcia&amp;series=1.2.3&amp;image=0"' in page.text
        shown = await get(address + "picture.png?series=1.2.3&image=0")
        assert (shown.headers["content-type"], shown.content[:4]) == ("image/png", b"\x89PNG")
        for uid in ("1.2.4", "../../etc/passwd", ""):
            assert (await get(f"{address}picture.png?series={uid}")).status_code == 404


@pytest.mark.parametrize("state", ["remote", "arriving", "evicted", "failed"])
async def test_what_is_not_on_disk_is_not_even_looked_for(state: str, daemon: Daemon) -> None:
    daemon.series = KnownFolder("1.0-x", 1, 1, 100, 0, 0, state, "1.2.3", "CT")
    async with served() as address:
        page = await get(address + "?at=/Lung/P1/study/1.0-x")
    assert "the series is not on disk" in page.text
    assert [each for each in daemon.asked if each[0] == "locate"] == []


async def test_a_picture_that_cannot_be_made_is_a_sentence(daemon: Daemon) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"no DICOM" * 100)
        file.flush()
        daemon.located = LocatedImage(file.name, 0, 800, "1-1.dcm", 0, 1)
        async with served() as address:
            page = await get(address + "?at=/Lung/P1/study/1.0-x")
            assert "There is no picture: its pixels cannot be read" in page.text
            assert (await get(address + "picture.png?series=1.2.3")).status_code == 404


async def test_a_daemon_that_is_dead_is_said_on_the_page(daemon: Daemon) -> None:
    daemon.is_dead = True
    async with served() as address:
        page = await get(address)
    assert page.status_code == 200
    assert "the daemon is dead" in page.text


async def test_what_is_not_there_is_said(daemon: Daemon) -> None:
    async with served() as address:
        assert (await get(address + "?mount=/elsewhere")).status_code == 404
        assert "is not a series there" in (await get(address + "?at=/a/b/c/other")).text
        assert (await get(address + "?at=/a/b/c/1.0-x&image=99999999999999")).status_code == 200
    async with served(()) as address:
        assert (await get(address)).status_code == 404
