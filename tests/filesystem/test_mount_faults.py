"""Each fault of a server, as programs on a mount meet it: errno, sentence, requests, what stays on disk."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tciafs.control.client import ask_status
from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of, middle_of_an_image
from tests.filesystem.faults import LISTING_FAULTS, MIDDLE, SERIES_FAULTS, Fault
from tests.filesystem.seen import BRIEF, FORGETS, PROGRAMS, Record, Seen, note, program, warm_up
from tests.mounting import Mount, mounted, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount


SEEN_BY_THE_FIRST = (errno.ETIMEDOUT, errno.EIO)
"""Where the others would wait as long again, or may open a good image before the series turns out bad."""


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", "60") as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.forget_requests()
    yield _archive
    _archive.clear_faults()
    _archive.restore()


@pytest.fixture(scope="module")
def untouched(_archive: RunningSample) -> list[ExpectedSeries]:
    """Series that nobody has read yet, of several images each."""
    return expected_series(_archive, "MANYSERIES")


@pytest.fixture(scope="module")
def mount(_archive: RunningSample) -> Iterator[Mount]:
    """Tries once; forgets failures, so that one question can fail in many ways."""
    with mounted(_archive.url, *BRIEF, "--retries", "0", "--read-ahead", "0", command=FORGETS) as mount:
        warm_up(mount)
        yield mount


@pytest.fixture(scope="module")
def patient_mount(_archive: RunningSample) -> Iterator[Mount]:
    with mounted(_archive.url, *BRIEF, "--retries", "2", "--read-ahead", "0") as mount:
        warm_up(mount)
        yield mount


def inject(sample: RunningSample, fault: Fault, series: ExpectedSeries) -> None:
    details: dict[str, Any] = dict(fault.injected)
    if details.get("after_bytes") == MIDDLE:
        details["after_bytes"] = middle_of_an_image(sample, series.uid)
    sample.forget_requests()
    sample.fault(series=series.uid, times=fault.times, **details)


def sentence_of(folder: Path) -> str:
    return os.getxattr(folder, "user.tciafs.error").decode()


def packs_of(mount: Mount, series: ExpectedSeries) -> list[Path]:
    return [path for path in mount.cache.rglob(f"*{series.uid}*") if path.is_file()]


# -- series -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", SERIES_FAULTS, ids=lambda fault: fault.what)
def test_a_series(
    fault: Fault,
    sample: RunningSample,
    mount: Mount,
    patient_mount: Mount,
    untouched: list[ExpectedSeries],
    tmp_path: Path,
    record_property: Record,
) -> None:
    series = untouched.pop()
    used = patient_mount if fault.retries else mount
    expected = images_of(sample, series.uid)
    last = max(expected)
    inject(sample, fault, series)
    folder = used.path / series.path
    seen = {fault.first: program(fault.first, folder, last, tmp_path)}
    asked = len(sample.requests("getImage"))
    assert seen[fault.first].errno == fault.errno
    assert 1 <= asked <= fault.requests
    if fault.errno:
        stays = "nothing"
        assert_told(fault, used, series)
        if fault.errno not in SEEN_BY_THE_FIRST or used is patient_mount:
            seen |= {each: program(each, folder, last, tmp_path) for each in PROGRAMS if each != fault.first}
            assert {name: came.errno for name, came in seen.items()} == dict.fromkeys(seen, fault.errno)
        if used is patient_mount:  # the other has forgotten it, and asks again for each
            assert len(sample.requests("getImage")) == asked
    else:
        stays = "the series"
        seen |= {each: program(each, folder, last, tmp_path) for each in PROGRAMS if each != fault.first}
        assert_had(used, series, expected, seen["cat"], tmp_path / "cp")
    note(record_property, "series", fault.what, fault.how, seen, stays)


def assert_told(fault: Fault, mount: Mount, series: ExpectedSeries) -> None:
    """The sentence is where users look, and nothing is left of what came."""
    folder = mount.path / series.path
    assert fault.says in sentence_of(folder)
    assert sentence_of(folder).endswith(".")
    assert os.getxattr(folder, "user.tciafs.state") == b"failed"
    (failure,) = (each for each in ask_status(mount.path).failures if each.series_uid == series.uid)
    assert sentence_of(folder).startswith(failure.message)
    until(lambda: mount.incoming() == [], "the removal of what came in")
    assert packs_of(mount, series) == []


def assert_had(
    mount: Mount, series: ExpectedSeries, expected: dict[str, bytes], seen: Seen, copy: Path
) -> None:
    """All of it is there, and right, and stays."""
    folder = mount.path / series.path
    assert seen.output == expected[max(expected)]
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == expected
    until(lambda: os.getxattr(folder, "user.tciafs.state") == b"local", "the series in its place")
    assert sorted(os.listdir(folder)) == sorted(expected)


def test_a_series_larger_than_the_cache(
    sample: RunningSample, untouched: list[ExpectedSeries], tmp_path: Path, record_property: Record
) -> None:
    series = untouched.pop()
    fault = Fault("cache too small", {"kind": "--cache-size"}, errno.ENOSPC, "of the cache")
    with mounted(sample.url, "--cache-size", str(series.size_bytes // 2)) as mount:
        folder = mount.path / series.path
        seen = {name: program(name, folder, "1-1.dcm", tmp_path) for name in PROGRAMS}
        assert {name: came.errno for name, came in seen.items()} == dict.fromkeys(seen, fault.errno)
        assert_told(fault, mount, series)
    note(record_property, "series", fault.what, "--cache-size of half the series", seen, "nothing")


CLAIMS: dict[str, tuple[dict[str, object], str, str, str]] = {
    "wrong ImageCount": ({"ImageCount": 41}, "Phantom-Brain-MR", "ls", "came with 40 of 41 images"),
    "wrong FileSize": ({"FileSize": 4711}, "Phantom-Echo-NC", "cat", "of 4,711 bytes"),
}


@pytest.mark.parametrize("what", list(CLAIMS))
def test_a_series_whose_listing_is_wrong(
    what: str, sample: RunningSample, mount: Mount, tmp_path: Path, record_property: Record
) -> None:
    columns, collection, first, says = CLAIMS[what]
    (series,) = expected_series(sample, collection)
    fault = Fault(what, {"kind": "claim", "columns": columns}, errno.EIO, says)
    sample.fault("claim", "getSeries", columns=columns, times=9)
    sample.forget_requests()
    seen = {first: program(first, mount.path / series.path, "1-1.dcm", tmp_path)}
    assert seen[first].errno == errno.EIO
    assert len(sample.requests("getImage")) == 1
    assert_told(fault, mount, series)
    note(record_property, "series", fault.what, fault.how, seen, "nothing")


# -- listings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", LISTING_FAULTS, ids=lambda fault: fault.what)
def test_a_listing(
    fault: Fault, sample: RunningSample, mount: Mount, tmp_path: Path, record_property: Record
) -> None:
    sample.fault(path="getPatient", times=fault.times, **fault.injected)
    folder = mount.path / "Transfer-Syntaxes"
    seen = {"ls": program("ls", folder, "", tmp_path)}
    assert 1 <= len(sample.requests("getPatient")) <= fault.requests
    assert fault.says in sentence_of(folder)
    assert fault.says in ask_status(mount.path).catalogue.events[-1].message
    seen["cat"] = program("cat", folder, "nobody", tmp_path)
    assert {name: came.errno for name, came in seen.items()} == dict.fromkeys(seen, fault.errno)
    note(record_property, "patients", fault.what, fault.how, seen, "nothing")
