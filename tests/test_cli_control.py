"""The commands that ask a daemon: which mount a word means, what is printed, sentences and exit codes.

The daemon's answers are given here, and the table of mounts is a file. Real ones are asked in
tests/filesystem/test_mount_commands.py.
"""

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from tciafs.control import client
from tciafs.control.failed_table import failed_csv
from tciafs.control.values import (
    CachedSeries,
    CheckPlace,
    CheckTurn,
    Evicted,
    FailureStatus,
    Status,
)
from tciafs.errors import AccessDenied, NoDaemon, NoSuchName, TciafsError, Unreachable
from tciafs.filesystem import mountpoint as mountpoints
from tests.command_line import Result, Run, command_line
from tests.statuses import make_status

STATUS = make_status()

FAILURE = FailureStatus("1.2.5", "Lung", "P3", 60.0, "SeriesDamaged", "came with 1 of 2 images", "Wait.")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""
    return command_line(monkeypatch, capfd)


class Daemons:
    """The mounts of a machine, and what their daemons answer: a status (None: they fail with `failure`)."""

    def __init__(self, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._table = table
        self._answers: dict[Path, Exception | None] = {}
        self.asked: list[tuple[Path, str]] = []
        self.failures: list[FailureStatus] = []
        self.dead: set[Path] = set()
        table.write_bytes(b"22 1 254:0 / / rw - ext4 /dev/root rw\n")
        monkeypatch.setattr(mountpoints, "MOUNTINFO", table)
        monkeypatch.setattr(mountpoints, "is_dead", self.dead.__contains__)
        monkeypatch.setattr(client, "ask_status", self._status)
        monkeypatch.setattr(client, "ask_failures", lambda _mountpoint: self.failures)
        monkeypatch.setattr(client, "ask_refresh", self._refresh)

    def mount(self, path: Path, failure: Exception | None = None, owner_uid: int | None = None) -> None:
        uid = os.geteuid() if owner_uid is None else owner_uid
        device = f"0:{50 + len(self._answers)}"
        self._answers[path] = failure
        with self._table.open("ab") as table:
            line = f"101 22 {device} / {path} ro - fuse.tciafs tciafs:host ro,user_id={uid},group_id=0\n"
            table.write(os.fsencode(line))

    def _status(self, mountpoint: Path) -> Status:
        if failure := self._answers[mountpoint]:
            raise failure
        return replace(STATUS, mountpoint=str(mountpoint))

    def _refresh(self, mountpoint: Path, path: str) -> None:
        self.asked.append((mountpoint, path))
        if failure := self._answers[mountpoint]:
            raise failure


@pytest.fixture
def daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemons:
    return Daemons(tmp_path / "mountinfo", monkeypatch)


# Metrics


def test_metrics_tell_of_all_mounts_also_of_those_whose_daemon_is_silent(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.mount(Path("/mnt/b"), NoDaemon("gone"))
    result = run("metrics")
    assert (result.code, result.err) == (1, "tciafs: gone\n")
    assert 'tciafs_up{mountpoint="/mnt/a"} 1.0\n' in result.out
    assert 'tciafs_up{mountpoint="/mnt/b"} 0.0\n' in result.out
    assert "/mnt/b" not in run("metrics", "/mnt/a").out


def test_metrics_of_no_mount_are_no_error(run: Run, daemons: Daemons) -> None:
    result = run("metrics")
    assert (result.code, result.err) == (0, "")
    assert "{" not in result.out


def test_metrics_replace_a_file_in_one_step(run: Run, daemons: Daemons, tmp_path: Path) -> None:
    daemons.mount(Path("/mnt/a"))
    file = tmp_path / "tciafs.prom"
    file.write_text("old")
    with file.open() as old:
        assert run("metrics", "--output", str(file)) == Result(0, "", "")
        assert old.read() == "old"
    assert 'tciafs_up{mountpoint="/mnt/a"} 1.0\n' in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    result = run("metrics", "--output", str(tmp_path / "none" / "x"))
    assert (result.code, "could not be written: No such file" in result.err) == (1, True)


# Status


def test_the_status_of_a_mount_is_shown_by_its_mount_point_or_a_path_in_it(
    run: Run, daemons: Daemons
) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.mount(Path("/mnt/b"))
    for word in ("/mnt/b", "/mnt/b/", "/mnt/b/Lung/P1"):
        result = run("status", word)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith("/mnt/b\n  archive    https://example.org/services\n")


def test_without_a_word_all_mounts_of_the_user_are_shown_and_no_other(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.mount(Path("/mnt/b"), owner_uid=os.geteuid() + 1)
    daemons.mount(Path("/mnt/c"))
    result = run("status")
    assert (result.code, result.err) == (0, "")
    assert [line for line in result.out.splitlines() if not line.startswith(" ")] == ["/mnt/a", "/mnt/c"]


def test_json_is_a_line_for_each_mount(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.mount(Path("/mnt/c"))
    lines = run("status", "--json").out.splitlines()
    assert [json.loads(line)["mountpoint"] for line in lines] == ["/mnt/a", "/mnt/c"]
    assert json.loads(run("status", "--json", "/mnt/c").out)["mountpoint"] == "/mnt/c"


@pytest.mark.parametrize("failed", [(), (FAILURE,)])
def test_what_failed_is_written_as_a_table(
    failed: tuple[FailureStatus, ...], run: Run, daemons: Daemons, tmp_path: Path
) -> None:
    daemons.mount(Path("/mnt/a"))
    daemons.failures = list(failed)
    file = tmp_path / "failed.csv"
    assert run("status", "--failed", str(file), "/mnt/a") == Result(
        0, f"{len(failed)} failed series in {file}\n", ""
    )
    assert file.read_bytes() == failed_csv(failed).encode()
    assert run("status", "--failed", "-").out.encode() == file.read_bytes()


def test_a_table_that_cannot_be_written_is_a_sentence(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"))
    for place, reason in (
        ("/nonexistent/failed.csv", "No such file or directory"),
        ("/dev/full", "No space"),
    ):
        result = run("status", "--failed", place)
        assert (result.code, result.out, reason in result.err, place in result.err) == (1, "", True, True)


def test_a_dead_mount_is_a_sentence_and_hides_no_other(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"), NoDaemon("takes no commands"))
    daemons.mount(Path("/mnt/c"))
    daemons.dead.add(Path("/mnt/a"))
    sentence = "tciafs: the daemon of /mnt/a is dead; clear it with: tciafs umount /mnt/a\n"
    assert run("status", "/mnt/a") == Result(1, "", sentence)
    result = run("status")
    assert (result.code, result.err) == (1, sentence)
    assert result.out.startswith("/mnt/c\n")


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (NoDaemon("the daemon of /mnt/a takes no commands"), "the daemon of /mnt/a takes no commands"),
        (TciafsError("it did not answer"), f"it did not answer. {TciafsError.hint}"),
    ],
)
def test_a_living_daemon_that_does_not_answer_is_a_sentence(
    run: Run, daemons: Daemons, failure: Exception, sentence: str
) -> None:
    daemons.mount(Path("/mnt/a"), failure)
    assert run("status", "/mnt/a") == Result(1, "", f"tciafs: {sentence}\n")


def test_where_nothing_is_mounted_there_is_no_status(run: Run, daemons: Daemons) -> None:
    assert run("status") == Result(3, "", "tciafs: you have no tciafs mounted\n")
    assert run("status", "/mnt/\x1b[2J") == Result(3, "", "tciafs: /mnt/\\x1b[2J does not exist\n")
    assert run("status", "/") == Result(3, "", "tciafs: no tciafs is mounted at /\n")
    assert run("status", "") == Result(2, "", "tciafs: the path is an empty word. See tciafs --help.\n")


def test_a_mount_of_somebody_else_is_not_asked(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/b"), owner_uid=4711)
    for command in ("status", "refresh"):
        result = run(command, "/mnt/b")
        assert (result.code, result.out, "by the user 4711, to whom alone" in result.err) == (3, "", True)
    assert daemons.asked == []


# Refresh


def test_a_refresh_asks_for_the_path_in_the_mount_and_says_so(run: Run, daemons: Daemons) -> None:
    daemons.mount(Path("/mnt/a"))
    assert run("refresh", "/mnt/a") == Result(0, "asked again: /mnt/a\n", "")
    assert run("refresh", "/mnt/a/Lung/P 1") == Result(0, "asked again: /mnt/a/Lung/P 1\n", "")
    assert run("refresh", "/mnt/a/x\x1by").out == "asked again: /mnt/a/x\\x1by\n"
    assert daemons.asked == [
        (Path("/mnt/a"), "/"),
        (Path("/mnt/a"), "/Lung/P 1"),
        (Path("/mnt/a"), "/x\x1by"),
    ]


def test_without_a_word_the_current_folder_is_asked_for_again(
    run: Run, daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnt" / "Lung").mkdir(parents=True)
    daemons.mount(tmp_path / "mnt")
    monkeypatch.chdir(tmp_path / "mnt" / "Lung")
    assert run("refresh") == Result(0, "asked again: .\n", "")
    (tmp_path / "mnt" / "Lung").rmdir()
    result = run("refresh")
    assert (result.code, "the current folder is not there any more" in result.err) == (3, True)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Unreachable("no route"), 1),
        (NoSuchName("no such collection"), 1),
        (AccessDenied("not for guests"), 4),
    ],
)
def test_what_the_archive_says_is_a_sentence_and_an_exit_code(
    run: Run, daemons: Daemons, failure: TciafsError, code: int
) -> None:
    daemons.mount(Path("/mnt/a"), failure)
    assert run("refresh", "/mnt/a") == Result(code, "", f"tciafs: {failure}. {failure.hint}\n")


def test_a_refresh_where_nothing_is_mounted_is_unusable(run: Run, daemons: Daemons) -> None:
    assert run("refresh", "/mnt") == Result(3, "", "tciafs: no tciafs is mounted at /mnt\n")


# Keeping, and dropping


def test_what_is_pinned_and_unpinned_is_said(
    run: Run, daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, str, bool]] = []
    daemons.mount(Path("/mnt/a"))
    monkeypatch.setattr(client, "ask_pin", lambda mount, path, *, pinned: asked.append((mount, path, pinned)))
    assert run("pin", "/mnt/a/Lung") == Result(0, "pinned: /mnt/a/Lung\n", "")
    assert run("unpin", "/mnt/a/x\x1by") == Result(0, "not pinned any more: /mnt/a/x\\x1by\n", "")
    assert asked == [(Path("/mnt/a"), "/Lung", True), (Path("/mnt/a"), "/x\x1by", False)]
    assert run("pin").code == 2


@pytest.mark.parametrize(
    ("done", "code", "said"),
    [
        (Evicted(1, 2048, 0, 0, None), 0, "1 series dropped, 2.0K freed"),
        (Evicted(1200, 0, 0, 3, None), 1, "1,200 series dropped, 0B freed; not dropped: 3 in use"),
        (Evicted(0, 0, 1, 2, None), 1, "0 series dropped, 0B freed; not dropped: 1 pinned, 2 in use"),
    ],
)
def test_what_was_evicted_is_said_and_what_had_to_stay(
    run: Run, daemons: Daemons, monkeypatch: pytest.MonkeyPatch, done: Evicted, code: int, said: str
) -> None:
    daemons.mount(Path("/mnt/a"))
    monkeypatch.setattr(client, "ask_evict", lambda _mount, _path: done)
    assert run("evict", "/mnt/a/Lung") == Result(code, f"/mnt/a/Lung: {said}\n", "")


# Verifying

CACHED = [CachedSeries(f"1.{number}", "Lung", "P 1", 2, 2048, ("crc32", "size")) for number in range(3)]
GOES_ON, ENDS = CheckTurn(512, CheckPlace(1, 0, 0, "x"), None, False), CheckTurn(512, None, None, False)


@pytest.fixture
def verified(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[CheckTurn | BaseException]]:
    """A mount with three series on disk, and what comes of the turns of each."""
    daemons.mount(Path("/mnt/a"))
    turns: dict[str, list[CheckTurn | BaseException]] = {each.series_uid: [GOES_ON, ENDS] for each in CACHED}

    def check(mountpoint: Path, series_uid: str, place: CheckPlace) -> CheckTurn:
        assert mountpoint == Path("/mnt/a")
        turn = turns[series_uid][place.image]
        if isinstance(turn, BaseException):
            raise turn
        return turn

    monkeypatch.setattr(client, "ask_check", check)
    monkeypatch.setattr(client, "ask_cached", lambda _mountpoint, path: CACHED if path == "/" else CACHED[:1])
    return turns


Turns = dict[str, list[CheckTurn | BaseException]]


def test_good_series_are_named_one_by_one_and_added_up(run: Run, verified: Turns) -> None:
    lines = [f"Lung/P 1 1.{number}: OK, 2 images, 2.0K, came with crc32,size" for number in range(3)]
    summary = "3 series checked, 3.0K read: 0 damaged"
    assert run("verify") == Result(0, "\n".join([*lines, summary, ""]), "")
    assert run("verify", "/mnt/a").out == run("verify").out
    assert run("verify", "--quiet") == Result(0, summary + "\n", "")
    assert run("verify", "--quiet", "/mnt/a/Lung").out == "1 series checked, 1.0K read: 0 damaged\n"


def test_a_damaged_series_is_named_and_makes_the_command_fail(run: Run, verified: Turns) -> None:
    verified["1.1"] = [GOES_ON, CheckTurn(0, None, "the bytes of \x1b[2J", False)]
    verified["1.2"] = [CheckTurn(0, None, None, True)]
    result = run("verify", "--quiet")
    said = r"Lung/P 1 1.1: DAMAGED, the bytes of \x1b[2J; fetched again when it is next read"
    assert (result.code, result.out.splitlines()[0]) == (1, said)
    assert result.out.splitlines()[1] == "3 series checked, 1.5K read: 1 damaged"
    assert "Lung/P 1 1.2: not here any more" in run("verify").out


def test_who_stops_it_is_told_how_far_it_came(run: Run, verified: Turns) -> None:
    verified["1.1"] = [GOES_ON, KeyboardInterrupt()]
    result = run("verify")
    assert result.code == 130
    assert result.out.splitlines()[-1] == "stopped: 1 series checked, 1.5K read: 0 damaged"


def test_a_mount_that_cannot_be_asked_hides_no_other(
    run: Run, daemons: Daemons, verified: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons.mount(Path("/mnt/b"))

    def cached(mountpoint: Path, _path: str) -> list[CachedSeries]:
        if mountpoint == Path("/mnt/b"):
            raise NoDaemon("it is dead")
        return CACHED

    def failed(mountpoint: Path) -> list[FailureStatus]:
        cached(mountpoint, "/")
        return []

    monkeypatch.setattr(client, "ask_cached", cached)
    monkeypatch.setattr(client, "ask_failures", failed)
    summary = "3 series checked, 3.0K read: 0 damaged\n"
    assert run("verify", "--quiet") == Result(1, summary, "tciafs: it is dead\n")
    assert run("status", "--failed", "-") == Result(1, failed_csv([]), "tciafs: it is dead\n")


def test_a_daemon_that_fails_meanwhile_is_a_sentence(run: Run, verified: Turns) -> None:
    verified["1.0"] = [NoDaemon("it ended")]
    assert run("verify") == Result(1, "0 series checked, 0B read: 0 damaged\n", "tciafs: it ended\n")


def test_on_a_terminal_it_shows_how_far_it_is(
    run: Run, verified: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    shown = run("verify").err
    assert "\r\x1b[K512B of 6.0K" in shown
    assert shown.endswith("\r\x1b[K")
