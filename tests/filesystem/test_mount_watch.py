"""`tciafs status --watch` with a real mount: on a terminal, and where there is none."""

import os
import pty
import select
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.mounting import PROGRAM, Mount, marked_environment, mounted, until
from tests.sample.running import RunningSample

pytestmark = pytest.mark.mount

PATIENCE_S = 30.0
ALTERNATE_SCREEN, ORDINARY_SCREEN = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url) as mount:
        yield mount


@contextmanager
def ended_after(patience_s: float, process: "subprocess.Popen[str]") -> Iterator[None]:
    """End a process that has not said in time what is waited for within, so that no test waits for ever."""
    timer = threading.Timer(patience_s, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(slots=True)
class Terminal:
    """A terminal in which a program runs: what it has written, keys to press, and how it is set."""

    process: "subprocess.Popen[bytes]"
    outer: int
    inner: int
    written: str = field(default="")

    def until_written(self, text: str) -> None:
        """Read on until the program has written a text."""
        while text not in self.written:
            readable, _, _ = select.select([self.outer], [], [], PATIENCE_S)
            assert readable, f"{text!r} was not written: {self.written!r}"
            self.written += os.read(self.outer, 65536).decode(errors="replace")

    def press(self, keys: bytes) -> None:
        """Have the program read these keys."""
        os.write(self.outer, keys)

    @property
    def echoes(self) -> bool:
        """Whether keys are shown, as in a shell."""
        return bool(termios.tcgetattr(self.inner)[3] & termios.ECHO)


@contextmanager
def in_terminal(*words: str) -> Iterator[Terminal]:
    """Run tciafs in a terminal of its own for the length of the block."""
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (40, 100))
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(inner), os.O_RDWR)),
        env=marked_environment("command") | {"TERM": "xterm"},
    )
    try:
        yield Terminal(process, outer, inner)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        os.close(outer)
        os.close(inner)


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03", b"\x04"], ids=["q", "Q", "Ctrl-C", "Ctrl-D"])
def test_a_key_ends_the_screen_and_leaves_the_terminal_as_it_was(key: bytes, mount: Mount) -> None:
    with in_terminal("status", "--watch", str(mount.path)) as terminal:
        terminal.until_written("q: end")
        assert ALTERNATE_SCREEN in terminal.written
        assert "downloads: 0 coming" in terminal.written
        assert not terminal.echoes
        terminal.press(key)
        terminal.until_written(ORDINARY_SCREEN)
        assert terminal.process.wait(PATIENCE_S) == 0
        assert terminal.echoes


def test_the_screen_ends_by_itself_with_the_mount(sample: RunningSample) -> None:
    with mounted(sample.url) as mount, in_terminal("status", "--watch", str(mount.path)) as terminal:
        terminal.until_written("q: end")
        mount.unmount()
        terminal.until_written(ORDINARY_SCREEN)
        assert terminal.process.wait(PATIENCE_S) == 0


def test_the_screen_says_that_a_daemon_was_killed(sample: RunningSample) -> None:
    with mounted(sample.url) as mount, in_terminal("status", "--watch", str(mount.path)) as terminal:
        terminal.until_written("q: end")
        mount.kill()
        terminal.until_written(ORDINARY_SCREEN)
        terminal.until_written("is dead; clear it with: tciafs umount")
        assert terminal.process.wait(PATIENCE_S) == 1


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_without_a_terminal_what_changes_is_printed_once(
    as_json: bool, sample: RunningSample, mount: Mount
) -> None:
    words = ["status", "--watch", *(["--json"] if as_json else []), str(mount.path)]
    with subprocess.Popen(
        [*PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=marked_environment("command"),
    ) as watcher:
        assert watcher.stdout is not None
        first = watcher.stdout.readline()
        assert ('"downloads_total": 0' if as_json else str(mount.path)) in first
        next((mount.path / "Phantom-Echo-NC").rglob("*.dcm")).read_bytes()
        wanted = '"series_fetched": 1' if as_json else "opened     images once "
        seen = [first]
        with ended_after(PATIENCE_S, watcher):
            while wanted not in seen[-1]:
                seen.append(watcher.stdout.readline())
                assert seen[-1], f"it ended: {seen}"
        mount.unmount()
        rest, errors = watcher.communicate(timeout=PATIENCE_S)
        assert "\x1b" not in "".join(seen) + rest
        assert (watcher.returncode, errors) == (0, "")
        if as_json:
            assert len(seen) == len(set(seen))


def test_who_reads_no_more_ends_it(mount: Mount) -> None:
    with subprocess.Popen(
        [*PROGRAM, "status", "--watch", "--json", str(mount.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=marked_environment("command"),
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        watcher.stdout.readline()
        watcher.stdout.close()
        os.listdir(mount.path / "Phantom-Head")
        until(lambda: watcher.poll() is not None, "the end of who writes for nobody")
        assert (watcher.returncode, watcher.stderr.read()) == (0, b"")


def test_ctrl_c_ends_it_where_there_is_no_terminal(mount: Mount) -> None:
    with subprocess.Popen(
        [*PROGRAM, "status", "--watch", str(mount.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=marked_environment("command"),
    ) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        _, errors = watcher.communicate(timeout=PATIENCE_S)
        assert (watcher.returncode, errors) == (0, b"")
