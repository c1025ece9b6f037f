"""Fetching ahead, through a mount and with real programs."""

import shutil
from collections.abc import Iterator

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import mounted, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", "40") as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> RunningSample:
    _archive.forget_requests()
    return _archive


@pytest.fixture(scope="module")
def series(_archive: RunningSample) -> list[ExpectedSeries]:
    """The series of four patients, in the order of their names."""
    return sorted(expected_series(_archive, "MANYSERIES"), key=lambda one: one.path)


def _asked(sample: RunningSample) -> list[str]:
    return [request.query["SeriesInstanceUID"] for request in sample.requests("getImage")]


def test_a_loop_of_a_shell_has_the_next_series_before_it_asks(
    sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    with mounted(sample.url) as mount:
        for one in series[:2]:
            run("sh", "-c", 'cat "$1"/* >/dev/null', "sh", mount.path / one.path)
        until(lambda: len(_asked(sample)) == 5, "three series ahead")
        assert set(_asked(sample)) == {one.uid for one in series[:5]}


def test_a_copy_of_all_is_complete_and_asks_once_for_each(
    sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    with mounted(sample.url) as mount:
        copied = mount.path.parent / "copied"
        assert run("cp", "-r", mount.path / "MANYSERIES", copied).returncode == 0
        for one in series:
            folder = copied / one.path.removeprefix("MANYSERIES/")
            assert {image.name: image.read_bytes() for image in folder.iterdir()} == images_of(
                sample, one.uid
            )
        assert sorted(_asked(sample)[: len(series)]) == sorted(one.uid for one in series)
        shutil.rmtree(copied)


def test_find_has_nothing_fetched(sample: RunningSample) -> None:
    with mounted(sample.url, "--listing", "names") as mount:
        assert run("find", mount.path / "MANYSERIES").returncode == 0
        assert not _asked(sample)


def test_it_can_be_switched_off(sample: RunningSample, series: list[ExpectedSeries]) -> None:
    with mounted(sample.url, "--read-ahead", "0") as mount:
        for one in series[:3]:
            run("sh", "-c", 'cat "$1"/* >/dev/null', "sh", mount.path / one.path)
        assert _asked(sample) == [one.uid for one in series[:3]]
