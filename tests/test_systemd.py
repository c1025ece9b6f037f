"""What systemd is told, what it hands over, and its units: a notify socket here plays the manager's part."""

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from tciafs import credentials, systemd
from tests.mounting import PROGRAM, is_mounted, marked_environment, processes_marked, run, until

REPOSITORY = Path(__file__).resolve().parents[1]
SYSTEM_UNIT = REPOSITORY / "systemd/tciafs@.service"
USER_UNIT = REPOSITORY / "systemd/user/tciafs@.service"
MOST_EXPOSED = 4.0
WAIT_S = 60.0

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here"
)
as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="mounts for another user: root, /dev/fuse"
)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which a manager hears its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


# What is said


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")


def test_a_manager_that_does_not_read_holds_up_nobody(
    manager: socket.socket, expect_log: Callable[[str], None]
) -> None:
    expect_log("systemd could not be told: .*unavailable")
    heard = 0
    while systemd.notify("STATUS=busy"):
        heard += 1
    assert heard > 0


@pytest.mark.parametrize(
    ("microseconds", "whose", "expected"),
    [
        ("60000000", "me", 60.0),
        ("60000000", "1", None),
        ("0", "me", None),
        ("", "me", None),
        ("x", "me", None),
    ],
)
def test_the_watchdog_is_obeyed_by_the_process_that_it_watches(
    microseconds: str, whose: str, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if whose == "me" else whose)
    assert systemd.watchdog_s() == expected


async def test_the_event_loop_says_that_it_turns_three_times_within_the_limit(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with trio.move_on_after(25):
        await systemd.keep_alive(lambda: "one\ntwo")
    assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1\nSTATUS=one two"] * 3
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


async def test_who_is_not_watched_says_nothing(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await systemd.keep_alive(lambda: "unheard")
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


# What is handed over


def received(manager: socket.socket) -> tuple[bytes, list[int]]:
    """Return what a service says, and the descriptors that came along."""
    message, descriptors, _flags, _address = socket.recv_fds(manager, 1000, 4)
    return message, descriptors


def test_a_descriptor_is_kept_in_the_place_of_an_earlier_one(manager: socket.socket) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        assert systemd.keep_descriptor(writing)
        os.close(writing)
        assert received(manager) == (b"FDSTOREREMOVE=1\nFDNAME=tciafs-mount", [])
        message, (kept,) = received(manager)
        assert message == b"FDSTORE=1\nFDNAME=tciafs-mount"
        os.write(kept, b"the same")
        os.close(kept)
        assert pipe.read() == b"the same"


@pytest.mark.parametrize(
    ("pid", "names", "expected"),
    [
        ("me", "tciafs-mount", 3),
        ("me", "other:tciafs-mount", 4),
        ("me", "other", None),
        ("1", "tciafs-mount", None),
    ],
)
def test_a_mount_is_taken_by_who_it_is_for_and_by_no_worker(
    pid: str, names: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_private: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "set_inheritable", lambda *given: made_private.append(given))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "me" else pid)
    monkeypatch.setenv("LISTEN_FDNAMES", names)
    assert systemd.take_mount() == expected
    assert made_private == ([] if expected is None else [(expected, False)])
    assert systemd.take_mount() is None


SERVE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="tciafs-mount")
os.execv(sys.executable, [sys.executable, "-m", "tciafs", *sys.argv[2:]])
"""


@pytest.mark.mount
@as_root
def test_a_mount_that_root_made_is_served_by_a_service_without_a_right_to_mount(
    manager: socket.socket, tmp_path: Path
) -> None:
    folder, mark = tmp_path / "mnt", uuid.uuid4().hex
    environment = marked_environment(mark) | {
        "TCIAFS_ARCHIVE": "sample",
        "TCIAFS_ALLOW_OTHER": "yes",
        "TCIAFS_CACHE_DIR": str(tmp_path / "cache"),
        "WATCHDOG_USEC": "60000000",
        "PATH": "/nonexistent",  # no fusermount3
    }
    attached = run(
        *PROGRAM,
        "attach",
        folder,
        "--for",
        "nobody",
        environment={**os.environ, **environment, "PATH": os.environ["PATH"]},
    )
    assert (attached.returncode, attached.stderr) == (0, "")
    assert is_mounted(folder)
    received(manager)
    _message, (descriptor,) = received(manager)
    command = [sys.executable, "-c", SERVE, str(descriptor), str(folder), "--foreground"]
    serving = subprocess.Popen(
        command, env=environment, pass_fds=[descriptor], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    os.close(descriptor)
    try:
        assert received(manager)[0] == b"FDSTOREREMOVE=1\nFDNAME=tciafs-mount"
        said = [received(manager)[0] for _ in range(2)]
        assert sorted(message.partition(b"\n")[0] for message in said) == [b"READY=1", b"WATCHDOG=1"]
        assert (folder / "Phantom-Head").is_dir()
        assert run("umount", "--lazy", folder).returncode == 0
        assert serving.wait(WAIT_S) == 0
        assert received(manager)[0] == b"STOPPING=1"
    finally:
        serving.kill()
        serving.wait(WAIT_S)
        if is_mounted(folder):
            run("umount", "--lazy", folder)
    until(lambda: not processes_marked(mark), "the end of the service's processes")


@as_root
@pytest.mark.mount
def test_what_nobody_keeps_is_not_left_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    done = run(*PROGRAM, "attach", tmp_path / "mnt", "--for", "nobody")
    assert (done.returncode, is_mounted(tmp_path / "mnt")) == (3, False)
    assert "NotifyAccess=exec" in done.stderr


# The units


@needs_analyze
@pytest.mark.parametrize(("unit", "whose"), [(SYSTEM_UNIT, "--system"), (USER_UNIT, "--user")])
def test_a_unit_is_valid(unit: Path, whose: str, tmp_path: Path) -> None:
    instance = shutil.copy(unit, tmp_path / "tciafs@mnt-tcia.service")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}  # without which there is no user's manager
    done = run("systemd-analyze", whose, "verify", "--man=no", str(instance), environment=environment)
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_the_unit_for_a_machine_is_confined(tmp_path: Path) -> None:
    instance = shutil.copy(SYSTEM_UNIT, tmp_path / "tciafs@mnt-tcia.service")
    threshold = f"--threshold={int(MOST_EXPOSED * 10)}"
    done = run("systemd-analyze", "security", "--offline=yes", "--no-pager", threshold, str(instance))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stuck_daemon_is_started_anew_by_both_units() -> None:
    for unit in (SYSTEM_UNIT, USER_UNIT):
        lines = unit.read_text("utf-8").splitlines()
        assert {"Type=notify", "WatchdogSec=60", "Restart=on-failure"} <= set(lines)


def lines_of(unit: Path, key: str) -> list[str]:
    """Return the values that a unit gives to a key."""
    lines = unit.read_text("utf-8").splitlines()
    return [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]


def test_the_log_file_is_opened_anew_by_a_reload_of_both_units() -> None:
    for unit in (SYSTEM_UNIT, USER_UNIT):
        assert lines_of(unit, "ExecReload") == ["/bin/kill -HUP $MAINPID"]


def test_a_machine_without_a_password_can_start_its_unit() -> None:
    """systemd fails a start for a path that is not there, but not for a name in its credential stores."""
    (loaded,) = lines_of(SYSTEM_UNIT, "LoadCredential")
    name, _, source = loaded.partition(":")
    assert name == credentials.SYSTEMD_NAME
    assert "/" not in source
    assert "%i" in source, "each mount has a password of its own"


def test_the_file_of_settings_is_found_for_a_path_that_systemd_escapes() -> None:
    r"""EnvironmentFile= is a pattern for glob(3), to which the backslash of mnt-my\x2dtcia is none."""
    (file,) = lines_of(SYSTEM_UNIT, "EnvironmentFile")
    assert "%i" not in file


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not here")
def test_the_user_of_the_service_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    wanted = REPOSITORY / "systemd/tciafs.sysusers.conf"
    done = run("systemd-sysusers", f"--root={tmp_path}", str(wanted))
    assert done.returncode == 0, done.stderr
    assert "tciafs:x:" in (tmp_path / "etc/passwd").read_text()


def test_the_socket_that_a_dead_manager_left_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("systemd could not be told: ")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as gone:
        gone.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    assert not systemd.notify("READY=1", 0)
