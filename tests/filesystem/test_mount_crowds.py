"""Through the kernel: a folder of 100,000 entries, listed at once, in small steps, and while it changes."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.filesystem.directory_stream import DirectoryStream
from tests.mounting import Mount, mounted, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is not there"),
]

PATIENTS = 100_000
STEP = 7001
"""How many entries are read at a time; the C library fetches some 800 at once."""

LICENCE = "LICENSE"
CHANGE_TIMEOUT_S = 60.0


def name(number: int) -> str:
    return f"MANY-{number:06}"


EVERYBODY = {LICENCE, *(name(number) for number in range(1, PATIENTS + 1))}
LEAVING = [name(number) for number in (*range(1, 4), *range(20_000, 20_020), PATIENTS)]
"""First, last and in the middle, as far as the order of names is that of the listing."""


@pytest.fixture(scope="module")
def archive() -> Iterator[RunningSample]:
    with running_sample("--many-patients", str(PATIENTS)) as sample:
        yield sample


@pytest.fixture
def sample(archive: RunningSample) -> Iterator[RunningSample]:
    yield archive
    archive.restore()


@pytest.fixture
def folder(sample: RunningSample) -> Iterator[Path]:
    """The collection, whose listing is believed for a second only."""
    with mounted(sample.url, "--listing-ttl", "1s") as mount:
        yield mount.path / "MANY"


@pytest.fixture(scope="module")
def mount(archive: RunningSample) -> Iterator[Mount]:
    with mounted(archive.url) as mount:
        yield mount


def withdraw(sample: RunningSample, patients: Iterable[str]) -> None:
    for patient in patients:
        (row,) = sample.rows("v4/getSeries", Collection="MANY", PatientID=patient)
        sample.withdraw(row["SeriesInstanceUID"])


def until_listed(folder: Path, *, back: bool) -> None:
    """Return once who lists anew sees those who left, or came back.

    Not once they exist: that a name does not is believed by the kernel for half a minute.
    """
    until(
        lambda: (LEAVING[0] in os.listdir(folder)) == back,
        "a listing as the archive now is",
        CHANGE_TIMEOUT_S,
    )


def assert_complete(names: list[str], expected: set[str]) -> None:
    assert len(names) == len(expected)
    assert set(names) == expected


@pytest.mark.parametrize("command", [("ls",), ("ls", "-l"), ("find", "-mindepth", "1", "-maxdepth", "1")])
def test_programs_list_100_000_entries_each_once(command: tuple[str, ...], mount: Mount) -> None:
    program, *options = command
    listed = run(program, mount.path / "MANY", *options)
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()[1 if command == ("ls", "-l") else 0 :]
    assert_complete([line.rpartition(" ")[2].rpartition("/")[2] for line in lines], EVERYBODY)


def test_inode_numbers_of_100_000_entries_are_all_different(mount: Mount) -> None:
    with os.scandir(mount.path / "MANY") as entries:
        inodes = {entry.inode() for entry in entries}
    assert len(inodes) == len(EVERYBODY)


def test_a_folder_read_in_steps_stays_as_it_was_opened_while_patients_come(
    sample: RunningSample, folder: Path
) -> None:
    withdraw(sample, LEAVING)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, STEP)]
        sample.restore()
        until_listed(folder, back=True)
        while step := [entry.name for entry in islice(entries, STEP)]:
            names += step
    assert_complete(names, EVERYBODY - set(LEAVING))
    assert_complete(os.listdir(folder), EVERYBODY)


def test_positions_in_an_open_folder_stay_those_of_the_same_entries_while_it_changes(
    sample: RunningSample, folder: Path
) -> None:
    with DirectoryStream(folder) as stream:
        names, positions = [], {}
        for number in range(PATIENTS + 1):
            if number % STEP == 0:
                positions[number] = stream.tell()
            names.append(next(stream))
        assert next(stream, None) is None
        withdraw(sample, LEAVING)
        until_listed(folder, back=False)
        for number, position in reversed(positions.items()):
            stream.seek(position)
            assert list(islice(stream, 10)) == names[number : number + 10]
        stream.seek(positions[STEP])
        assert list(stream) == names[STEP:]
    assert_complete(names, EVERYBODY)


def test_folders_opened_before_and_after_a_change_are_read_side_by_side(
    sample: RunningSample, folder: Path
) -> None:
    with DirectoryStream(folder) as before:
        old = list(islice(before, STEP))
        withdraw(sample, LEAVING)
        until_listed(folder, back=False)
        with DirectoryStream(folder) as after:
            new: list[str] = []
            while step := [*islice(before, STEP)]:
                old += step
                new += islice(after, STEP)
            new += after
    assert_complete(old, EVERYBODY)
    assert_complete(new, EVERYBODY - set(LEAVING))
