"""`tciafs prefetch` and `tciafs retry`: which mount they mean, and what they have fetched.

The daemons' answers are given here, and the table of mounts is a file. Real ones are asked in
tests/filesystem/test_mount_prefetch.py.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tciafs.control import client
from tciafs.control.series_values import ListedSeries, Prefetch, PrefetchedSeries, PrefetchTurn
from tciafs.errors import NoDaemon
from tciafs.filesystem import mountpoint as mountpoints
from tests.command_line import Result, Run, command_line

PAUSED = "downloads are paused; tciafs resume lets them go on"
HERE = [ListedSeries(("Lung", "P1", "1.2", f"1.2.{number}"), 2, 2048) for number in range(3)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""
    return command_line(monkeypatch, capfd)


@dataclass
class Daemons:
    """Mounts whose series come at once, and what they were asked; one that is in `dead` does not answer."""

    table: Path
    failed: dict[Path, list[ListedSeries]] = field(default_factory=dict)
    dead: set[Path] = field(default_factory=set)
    paused: set[Path] = field(default_factory=set)
    fetched: list[tuple[Path, str, bool]] = field(default_factory=list)

    def mount(self, path: Path, failed: Sequence[ListedSeries] = ()) -> None:
        device = f"0:{50 + len(self.failed)}"
        self.failed[path] = list(failed)
        with self.table.open("a") as table:
            owner = f"user_id={os.geteuid()},group_id=0"
            table.write(f"101 22 {device} / {path} ro - fuse.tciafs tciafs:host ro,{owner}\n")

    def list_failed(self, mountpoint: Path, _path: str) -> list[ListedSeries]:
        if mountpoint in self.dead:
            raise NoDaemon(f"the daemon of {mountpoint} takes no commands")
        return self.failed[mountpoint]

    def list_named(self, _mountpoint: Path, series_uids: Sequence[str]) -> list[ListedSeries]:
        return [each for each in HERE if each.path[-1] in series_uids]

    def prefetch(self, mountpoint: Path, wish: Prefetch) -> PrefetchTurn:
        if mountpoint in self.paused:
            states = (PrefetchedSeries(path[-1], "failed", 0, "Refused", PAUSED) for path in wish.series)
            return PrefetchTurn(tuple(states))
        self.fetched += [(mountpoint, path[-1], wish.again) for path in wish.series]
        return PrefetchTurn(tuple(PrefetchedSeries(path[-1], "fetched", 2048) for path in wish.series))


@pytest.fixture
def daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemons:
    daemons = Daemons(tmp_path / "mountinfo")
    daemons.table.write_text("22 1 254:0 / / rw - ext4 /dev/root rw\n")
    monkeypatch.setattr(mountpoints, "MOUNTINFO", daemons.table)
    monkeypatch.setattr(mountpoints, "is_dead", daemons.dead.__contains__)
    monkeypatch.setattr(client, "ask_failed", daemons.list_failed)
    monkeypatch.setattr(client, "ask_named", daemons.list_named)
    monkeypatch.setattr(client, "ask_series", lambda _mountpoint, _path: HERE)
    monkeypatch.setattr(client, "ask_prefetch", daemons.prefetch)
    return daemons


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "cohort.tcia"
    file.write_text("manifestVersion=3.0\nListOfSeriesToDownload=\n1.2.1\n1.2.2\n")
    return file


def test_without_a_path_what_failed_in_all_mounts_is_tried_again(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"), HERE[:1])
    daemons.mount(Path("/mnt/b"))
    daemons.mount(Path("/mnt/c"), HERE[1:2])
    result = run("retry")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "Lung/P1 1.2.0: fetched\nLung/P1 1.2.1: fetched\n2 series fetched (4.0K), 0 were here\n"
    )
    assert daemons.fetched == [(Path("/mnt/a"), "1.2.0", True), (Path("/mnt/c"), "1.2.1", True)]


def test_a_daemon_that_does_not_answer_hides_no_other(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.mount(Path("/mnt/c"), HERE[:1])
    daemons.dead.add(Path("/mnt/a"))
    result = run("retry")
    assert (result.code, "the daemon of /mnt/a is dead" in result.err) == (1, True)
    assert daemons.fetched == [(Path("/mnt/c"), "1.2.0", True)]


def test_the_only_mount_fetches_what_a_manifest_names(run: Run, daemons: Daemons, manifest: Path) -> None:
    daemons.mount(Path("/mnt/a"))
    result = run("prefetch", str(manifest))
    assert (result.code, result.err) == (0, "")
    assert daemons.fetched == [(Path("/mnt/a"), "1.2.1", False), (Path("/mnt/a"), "1.2.2", False)]


def test_among_several_mounts_one_has_to_be_named(run: Run, daemons: Daemons, manifest: Path) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.mount(Path("/mnt/b"))
    sentence = "tciafs: you have 2 mounts; say with --mount which of them is to fetch. See tciafs --help.\n"
    assert run("prefetch", str(manifest)) == Result(2, "", sentence)
    assert run("prefetch", "--mount", "/mnt/b/Lung", str(manifest)).code == 0
    assert {mount for mount, _, _ in daemons.fetched} == {Path("/mnt/b")}


def test_without_a_mount_there_is_nobody_to_fetch(run: Run, daemons: Daemons, manifest: Path) -> None:
    assert run("prefetch", str(manifest)) == Result(3, "", "tciafs: you have no tciafs mounted\n")
    assert run("retry") == Result(3, "", "tciafs: you have no tciafs mounted\n")


def test_a_word_in_a_mount_is_no_manifest_and_nothing_there_is_looked_at(
    run: Run, daemons: Daemons, manifest: Path
) -> None:
    daemons.mount(manifest.parent)
    assert run("prefetch", str(manifest)).code == 0
    assert [uid for _, uid, _ in daemons.fetched] == ["1.2.0", "1.2.1", "1.2.2"]


def test_what_stops_all_is_said_once_and_nothing_counts_as_failed(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.paused.add(Path("/mnt/a"))
    said = f"tciafs: not all could be fetched: {PAUSED}\n"
    assert run("prefetch", "/mnt/a") == Result(1, "0 series fetched (0B), 0 were here\n", said)
