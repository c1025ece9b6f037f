"""Through the kernel: programs that look at what they list are no walkers, however many folders they list."""

import os
from collections.abc import Iterator

import pytest

from tests.behaviour.retriever import expected_series, images_of
from tests.mounting import Mount, mounted, run
from tests.sample.running import RunningSample

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is not there"),
]

COLLECTION = "Numbering_Traps"
"""Of its 13 series most have names that cannot be guessed from the number of images."""


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url) as mount:
        yield mount


@pytest.mark.parametrize("program", ["find", "du"])
def test_who_looks_at_each_folder_before_the_next_sees_true_names_only(
    program: str, sample: RunningSample, mount: Mount
) -> None:
    options = {"find": ("-type", "f", "-size", "+0", "-printf", "x\t%p\n"), "du": ("-a",)}[program]
    shown = run(program, mount.path / COLLECTION, *options)
    assert shown.returncode == 0, shown.stderr
    paths = [line.partition("\t")[2] for line in shown.stdout.splitlines()]
    for series in expected_series(sample, COLLECTION):
        folder = f"{mount.path / series.path}/"
        seen = {path.removeprefix(folder) for path in paths if path.startswith(folder)}
        assert seen == images_of(sample, series.uid).keys()


def test_who_only_lists_names_is_given_provisional_ones_from_the_fourth_series_on(
    sample: RunningSample, mount: Mount
) -> None:
    sample.forget_requests()
    assert run("find", mount.path / COLLECTION, "-name", "*.dcm").returncode == 0
    assert 0 < len(sample.requests("getImage")) <= 3
