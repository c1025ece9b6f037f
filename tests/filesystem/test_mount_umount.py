"""`tciafs umount` returns once the daemon has ended, or says that it has not."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tciafs.cli import mounting
from tciafs.control.place import Daemon
from tests.command_line import Run, command_line, without_settings
from tests.mounting import Mount, is_mounted, mounted, processes_marked, program, run
from tests.sample.running import RunningSample

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url, background=True) as mount:
        yield mount


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, where a test sees what it waits for."""
    without_settings(monkeypatch)
    return command_line(monkeypatch, capfd, "umount")


@pytest.fixture
def never_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that waits for a daemon fails."""

    def wait(daemon: Daemon, timeout_s: float) -> bool:
        raise AssertionError(f"waited for {daemon}")

    monkeypatch.setattr(Daemon, "has_ended", wait)


def read_something(mount: Mount) -> None:
    assert next((mount.path / "Phantom-Echo-NC").rglob("*.dcm")).read_bytes()


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_once_it_returns_no_process_is_left_and_the_cache_can_be_removed(
    background: bool, sample: RunningSample
) -> None:
    with mounted(sample.url, background=background) as mount:
        read_something(mount)
        done = program("umount", mount.path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert mount.ended
        mount.process.wait()
        assert processes_marked(mount.mark) == []
        shutil.rmtree(mount.cache)


def test_a_daemon_that_takes_its_time_is_waited_for(
    mount: Mount, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_ended = Daemon.has_ended

    def go_on(daemon: Daemon, timeout_s: float) -> bool:
        assert not is_mounted(mount.path)
        assert daemon.pid == mount.pid
        mount.signal(signal.SIGCONT)
        return has_ended(daemon, timeout_s)

    monkeypatch.setattr(Daemon, "has_ended", go_on)
    mount.signal(signal.SIGSTOP)
    done = here(str(mount.path))
    assert (done.code, done.out, done.err) == (0, "", "")
    assert mount.ended


def test_of_a_frozen_daemon_it_says_that_it_is_still_there(
    mount: Mount, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounting, "END_TIMEOUT_S", 0.1)
    mount.signal(signal.SIGSTOP)
    try:
        done = here(str(mount.path))
        assert not is_mounted(mount.path)
        assert not mount.ended
    finally:
        mount.signal(signal.SIGCONT)
    said = f"its daemon (process {mount.pid}) has not ended within 0.1 s"
    sentence = f"tciafs: {mount.path} is unmounted, but {said}; it still has its cache folder\n"
    assert (done.code, done.out, done.err) == (0, "", sentence)
    mount.wait_ended()


@pytest.mark.usefixtures("never_waiting")
def test_a_mount_in_use_is_refused_without_waiting(mount: Mount, here: Run) -> None:
    with (mount.path / "Phantom-Head" / "LICENSE").open("rb"):
        done = here(str(mount.path))
        assert os.listdir(mount.path)
    assert done.code == 3
    assert "is in use" in done.err


@pytest.mark.usefixtures("never_waiting")
def test_a_dead_daemon_is_not_waited_for(mount: Mount, here: Run) -> None:
    mount.kill()
    done = here(str(mount.path))
    assert (done.code, done.out, done.err) == (0, "", "")
    assert not is_mounted(mount.path)


@pytest.mark.usefixtures("never_waiting")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can bind a mount elsewhere")
def test_a_daemon_that_goes_on_serving_at_another_place_is_not_waited_for(
    mount: Mount, here: Run, tmp_path: Path
) -> None:
    assert run("mount", "--bind", mount.path, tmp_path).returncode == 0
    try:
        done = here(str(mount.path))
        assert (done.code, done.out, done.err) == (0, "", "")
        assert os.listdir(tmp_path)
        assert not mount.ended
    finally:
        assert run("umount", tmp_path).returncode == 0
    mount.wait_ended()


def with_a_slash(path: Path, _: Path) -> str:
    return f"{path}/"


def relative(path: Path, _: Path) -> str:
    return os.path.relpath(path)


def through_a_link(path: Path, folder: Path) -> str:
    link = folder / "link"
    link.symlink_to(path)
    return str(link)


@pytest.mark.parametrize("written", [with_a_slash, relative, through_a_link])
def test_it_waits_whichever_way_the_mount_point_is_written(
    written: Callable[[Path, Path], str],
    mount: Mount,
    here: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[int] = []

    def note(daemon: Daemon, timeout_s: float) -> bool:
        waited.append(daemon.pid)
        return True

    monkeypatch.setattr(Daemon, "has_ended", note)
    assert here(written(mount.path, tmp_path)).code == 0
    assert waited == [mount.pid]
    mount.wait_ended()
