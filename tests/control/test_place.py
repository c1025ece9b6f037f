"""Where the control socket is: private to its user, one for each mount point, replaced when it is stale."""

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tciafs.control import place
from tciafs.control.place import clear, daemon_at, listening, sockets

MOUNT = Path("/mnt/tcia")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for sockets below it."""
    with tempfile.TemporaryDirectory(prefix="tciafs-test-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def runtime(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime folder of the session; there is another place beside it."""
    folder = short / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(place, "RUNTIME", short / "standard")
    monkeypatch.setattr(place, "TEMPORARY", short)
    return folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_gets_at_the_socket(umask: int, runtime: Path) -> None:
    before = os.umask(umask)
    try:
        with listening(MOUNT) as listener:
            assert listener is not None
            (path,) = sockets(MOUNT)
            assert path.parent == runtime / "tciafs"
            assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
            assert not os.get_inheritable(listener.fileno())
            assert answers(path)
    finally:
        os.umask(before)


def test_the_socket_is_removed_at_the_end() -> None:
    with listening(MOUNT):
        assert len(sockets(MOUNT)) == 1
    assert sockets(MOUNT) == []


def test_each_mount_point_has_its_own() -> None:
    with listening(MOUNT), listening(Path("/mnt/\udcff")):
        found = {*sockets(MOUNT), *sockets(Path("/mnt/\udcff"))}
        assert len(found) == 2
        assert sockets(Path("/mnt")) == []


def test_a_socket_that_a_dead_daemon_left_is_replaced(runtime: Path) -> None:
    with listening(MOUNT):
        (path,) = sockets(MOUNT)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert not answers(path)
    with listening(MOUNT):
        assert answers(path)


def test_who_ends_later_leaves_the_socket_of_the_next_mount_alone() -> None:
    with listening(MOUNT):
        (path,) = sockets(MOUNT)
        after = listening(MOUNT)
        after.__enter__()
    assert answers(path)
    after.__exit__(None, None, None)
    assert sockets(MOUNT) == []


def test_without_a_runtime_folder_a_private_one_below_the_temporary_folder_serves(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", "relative", str(short / "gone")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        with listening(MOUNT) as listener:
            assert listener is not None
            (path,) = sockets(MOUNT)
            assert path.parent == short / f"tciafs-{os.geteuid()}"
            assert mode_of(path.parent) == 0o700


def test_a_command_of_another_session_finds_the_socket(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with listening(MOUNT):
        (path,) = sockets(MOUNT)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "run"))
        assert sockets(MOUNT) == [path]


def open_to_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def a_link(folder: Path) -> None:
    target = folder.with_name("elsewhere")
    target.mkdir(mode=0o700, exist_ok=True)
    folder.symlink_to(target)


def a_file(folder: Path) -> None:
    folder.touch()


def in_a_folder_of_all(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.parent.chmod(0o777)


@pytest.mark.parametrize("spoil", [open_to_others, a_link, a_file, in_a_folder_of_all])
def test_a_folder_that_is_not_private_is_not_used(
    spoil: Callable[[Path], None], runtime: Path, short: Path
) -> None:
    spoil(runtime / "tciafs")
    with listening(MOUNT):
        (path,) = sockets(MOUNT)
        assert path.parent.parent == short


def test_a_folder_of_somebody_else_is_not_used_and_nothing_in_it_is_believed(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    with listening(MOUNT):
        assert len(sockets(MOUNT)) == 1
        me = os.geteuid()
        monkeypatch.setattr("tciafs.control.place.os.geteuid", lambda: me + 1)
        assert sockets(MOUNT) == []
        expect_log("commands will not reach this mount: .*not a folder of this user alone")
        (runtime.parent / f"tciafs-{me + 1}").mkdir(mode=0o700)
        with listening(MOUNT) as listener:
            assert listener is None


@pytest.mark.expect_log("commands will not reach this mount: .*too long")
def test_a_place_that_is_too_long_for_a_socket_is_a_warning_and_no_end(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = short / ("x" * 100)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(place, "TEMPORARY", deep)
    with listening(MOUNT) as listener:
        assert listener is None


def test_what_a_killed_daemon_left_is_cleared_and_what_a_live_one_has_is_not() -> None:
    with listening(MOUNT) as listener:
        assert listener is not None
        clear(MOUNT)
        (path,) = sockets(MOUNT)
        assert answers(path)
        os.close(listener.detach())  # as a killed process leaves it
        clear(MOUNT)
        assert sockets(MOUNT) == []


# Who is behind a mount


def left_behind(path: Path) -> None:
    """Leave a socket as a daemon does that is killed."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_the_daemon_of_a_mount_is_who_listens_there_and_is_held_for_the_block() -> None:
    with listening(MOUNT):
        with daemon_at(MOUNT) as daemon:
            assert daemon is not None
            assert daemon.pid == os.getpid()
            assert not daemon.has_ended(0)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(daemon._pidfd)
        with daemon_at(Path("/mnt/another")) as another:
            assert another is None


def test_a_daemon_that_is_dead_already_is_none() -> None:
    with listening(MOUNT):
        (path,) = sockets(MOUNT)
    left_behind(path)
    with daemon_at(MOUNT) as daemon:
        assert daemon is None


def test_of_daemons_that_mounted_at_a_place_one_after_the_other_the_latest_is_meant(
    short: Path,
) -> None:
    with listening(MOUNT):
        (path,) = sockets(MOUNT)
        later = short / f"tciafs-{os.geteuid()}" / path.name
        left_behind(later)
        for at, each in enumerate((path, later)):
            os.utime(each, (at, at))
        with daemon_at(MOUNT) as daemon:
            assert daemon is None
        os.utime(path, (2, 2))
        with daemon_at(MOUNT) as daemon:
            assert daemon is not None


def test_a_daemon_that_ends_while_it_is_looked_for_is_none_whoever_has_its_number_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pidfd_open = os.pidfd_open
    with listening(MOUNT) as listener:
        assert listener is not None

        def too_late(pid: int) -> int:
            listener.close()
            return pidfd_open(pid)

        monkeypatch.setattr(os, "pidfd_open", too_late)
        with daemon_at(MOUNT) as daemon:
            assert daemon is None


def test_where_processes_cannot_be_held_there_is_no_daemon_to_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with listening(MOUNT):
        monkeypatch.setattr(os, "pidfd_open", refuse)
        with daemon_at(MOUNT) as daemon:
            assert daemon is None


def test_a_python_that_knows_of_no_pidfds_can_wait_for_a_daemon_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with listening(MOUNT), daemon_at(MOUNT) as daemon:
        assert daemon is not None
        assert daemon.pid == os.getpid()
        assert not daemon.has_ended(0)
        assert not os.get_inheritable(daemon._pidfd)
        monkeypatch.setattr(place, "PIDFD_OPEN", -1)  # as before Linux 5.3
        with daemon_at(MOUNT) as unseen:
            assert unseen is None


def test_a_daemon_that_is_stuck_with_a_full_queue_holds_nobody_up() -> None:
    with listening(MOUNT) as listener, ExitStack() as callers:
        assert listener is not None
        (path,) = sockets(MOUNT)
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(path))
        with daemon_at(MOUNT) as daemon:
            assert daemon is None
