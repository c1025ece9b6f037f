"""`tciafs status --web` of a real mount, in headless Chromium if there is one: by day and by night."""

import html
import io
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from PIL import Image

from tests.behaviour.retriever import ExpectedSeries, expected_series
from tests.mounting import PROGRAM, Mount, marked_environment, mounted, run, status_of, until
from tests.sample.running import RunningSample

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: chromium)"),
]

BROWSER_TIMEOUT_S = 60.0
DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="module")
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url) as mount:
        yield mount


@pytest.fixture(scope="module")
def series(sample: RunningSample, mount: Mount) -> ExpectedSeries:
    """A series on disk."""
    (found,) = expected_series(sample, "Phantom-Brain-MR")
    (mount.path / found.path / "1-01.dcm").read_bytes()
    until(lambda: status_of(mount)["cache"]["series"] == 1, "the series in its place")
    return found


@pytest.fixture(scope="module")
def address(mount: Mount) -> Iterator[str]:
    with subprocess.Popen(
        [*PROGRAM, "status", "--web", str(mount.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=marked_environment("command"),
    ) as serving:
        assert serving.stdout is not None
        yield serving.stdout.readline().strip()
        serving.send_signal(signal.SIGINT)
        _, said = serving.communicate(timeout=BROWSER_TIMEOUT_S)
        assert (serving.returncode, said) == (0, "Open it in a browser on this machine; Ctrl-C ends it.\n")


def browse(address: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a browser of its own; whatever it complains of is on its standard error."""
    assert CHROMIUM is not None
    done = run(
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--window-size=1000,1200",
        "--virtual-time-budget=3000",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        address,
        timeout_s=BROWSER_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    return done


def looked_at(address: str, folder: Path, *options: str) -> Image.Image:
    picture = folder / "page.png"
    browse(address, folder, f"--screenshot={picture}", *options)
    return Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")


def of_series(address: str, series: ExpectedSeries) -> str:
    return f"{address}?{urlencode({'at': f'/{series.path}'})}"


def test_the_tree_and_what_happens_can_be_read(
    address: str, series: ExpectedSeries, sample: RunningSample, tmp_path: Path
) -> None:
    asked = len(sample.requests())
    page = browse(address, tmp_path, "--dump-dom").stdout
    assert re.search(r"Phantom-Brain-MR</a>.*?1\.\dM in 1 series", page, re.DOTALL)
    assert "from the cache" in page
    inner = browse(of_series(address, series), tmp_path, "--dump-dom").stdout
    assert f"<code>{series.uid}</code>" in inner
    assert "image 21 of 40" in inner
    assert len(sample.requests()) == asked  # nothing was asked of the archive, let alone fetched


def test_without_scripts_the_page_says_the_same(address: str, series: ExpectedSeries) -> None:
    with httpx.Client(trust_env=False) as client:
        page = client.get(of_series(address, series)).text
        (shown,) = re.findall(r'<img src="([^"]+)"', page)
        assert client.get(address + html.unescape(shown)).headers["content-type"] == "image/png"
        (following,) = re.findall(r'<a rel="next" href="([^"]+)"', page)
        assert "image 22 of 40" in client.get(address + html.unescape(following)).text
    assert "from the cache" in page
    assert '<noscript><meta http-equiv="refresh"' in page


@pytest.mark.parametrize(("options", "is_dark"), [((), False), ((DARK,), True)], ids=["light", "dark"])
def test_a_series_is_seen_by_day_and_by_night(
    options: tuple[str, ...], is_dark: bool, address: str, series: ExpectedSeries, tmp_path: Path
) -> None:
    seen = looked_at(of_series(address, series), tmp_path, *options)
    ground = seen.getpixel((5, 1190))
    assert isinstance(ground, tuple)
    assert (max(ground) < 60) if is_dark else (min(ground) > 200)
    # The picture of a brain: large, black around, and neither all black nor all white.
    greys = seen.crop((40, 300, 500, 1000)).convert("L").histogram()
    assert greys[0] > 20_000
    assert sum(greys[60:200]) > 20_000


def test_a_series_that_is_not_on_disk_is_not_fetched_by_looking(
    address: str, sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    (remote,) = (each for each in expected_series(sample, "Phantom-Head") if each.image_count == 60)
    (mount.path / remote.path).stat()
    sample.forget_requests()
    page = browse(of_series(address, remote), tmp_path, "--dump-dom").stdout
    assert "There is no picture, as the series is not on disk." in page
    assert sample.requests("getImage") == []
    assert status_of(mount)["downloads"] == []
