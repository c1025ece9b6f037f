"""A series of very many images through a mount: listed, measured and read, before and after it is known."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

MANY = 91_980
"""The largest series of TCIA."""

SIZES = [1500, pytest.param(MANY, marks=pytest.mark.slow)]
PATIENCE_S = 300.0


@pytest.fixture(params=SIZES)
def archive(request: pytest.FixtureRequest) -> Iterator[RunningSample]:
    if request.param == MANY and "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes two minutes: pytest -m slow")
    with running_sample("--huge-images", str(request.param)) as sample:
        yield sample


def listed(mount: Mount, series: ExpectedSeries, *how: str) -> list[str]:
    """Return what ls prints of a series."""
    done = run("ls", *how, mount.path / series.path, timeout_s=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def digests(mount: Mount, series: ExpectedSeries) -> dict[str, str]:
    """Return the MD5 of each image, read by one program after the other."""
    command = f"cd '{mount.path / series.path}' && find . -name '*.dcm' -size +0 -print0 | xargs -0 md5sum"
    done = run("sh", "-c", command, timeout_s=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    pairs = (line.split("  ./") for line in done.stdout.splitlines())
    return {name: digest for digest, name in pairs}


def test_a_huge_series_is_listed_measured_and_read(archive: RunningSample, tmp_path: Path) -> None:
    (series,) = expected_series(archive, "HUGE")
    contents = images_of(archive, series.uid)
    expected = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    names = sorted(expected)
    archive.forget_requests()
    with mounted(archive.url, "--listing", "names", folder=tmp_path) as mount:
        assert listed(mount, series) == names
        assert archive.requests("getImage") == []
        last = mount.path / series.path / names[-1]
        assert last.stat().st_size == len(contents[names[-1]])
        assert digests(mount, series) == expected
        packs = mount.cache / "series"
        until(lambda: list(packs.glob("*/*.pack")), "the pack in its place", PATIENCE_S)
    assert len(archive.requests("getImage")) == 1
    archive.forget_requests()
    with mounted(archive.url, folder=tmp_path) as mount:
        last = mount.path / series.path / names[-1]
        assert last.stat().st_size == len(contents[names[-1]])
        lines = listed(mount, series, "-l")[1:]
        assert [line.split()[-1] for line in lines] == names
        assert sum(int(line.split()[4]) for line in lines) == series.size_bytes
        assert last.read_bytes() == contents[names[-1]]
    assert archive.requests("getImage") == []
