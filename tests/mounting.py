"""The real program mounted for a test: started in a process of its own, ready, unmounted, nothing left.

`mounted(url, *options)` is the entry; `run` and `until` bound what tests do with a mount. Every process that
stems from a mount is known by a word in its environment, so that leftovers are found wherever they went.
All calls block and have a bound; nothing waits for a time to pass where there is a sign to wait for.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tciafs.control.client import ask_status
from tciafs.control.place import clear
from tciafs.control.report import json_line
from tciafs.filesystem.mountpoint import unmount

__all__ = [
    "PROGRAM",
    "Mount",
    "is_mounted",
    "marked_environment",
    "mounted",
    "processes_marked",
    "program",
    "run",
    "status_of",
    "until",
]

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 20.0
RUN_TIMEOUT_S = 60.0
POLL_S = 0.01
POLL_SHARE = 0.1
"""What is waited for is looked at less often the longer it takes: a look costs the one who is asked, too."""
MARK = "MOUNTED_FOR_TEST"
"""The name in the environment that a mount's processes inherit."""

PROGRAM = (sys.executable, "-m", "tciafs")


def run(
    *command: str | Path, timeout_s: float = RUN_TIMEOUT_S, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what came of it; raises TimeoutExpired."""
    return subprocess.run(
        [str(word) for word in command],
        check=False,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout_s,
        env=environment,
    )


def program(*words: str | Path, timeout_s: float = RUN_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run tciafs with these words."""
    return run(*PROGRAM, *words, timeout_s=timeout_s, environment=marked_environment("command"))


def status_of(mount: "Mount") -> dict[str, Any]:
    """Return what the daemon of a mount says of itself, as `tciafs status --json` prints it.

    Not by that command: tests ask until something has happened, and each process costs a fifth of a second.
    """
    found: dict[str, Any] = json.loads(json_line(ask_status(mount.path)))
    return found


def until(
    condition: Callable[[], object],
    what: str,
    timeout_s: float = END_TIMEOUT_S,
    *,
    late_by: float = POLL_SHARE,
) -> None:
    """Return once `condition()` is true; fails after `timeout_s`, naming what was waited for.

    It may come late by this share of the time that it took; 0 is for tests to which the very moment matters.
    """
    start = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - start
        if waited_s > timeout_s:
            raise AssertionError(f"{what} did not come about within {timeout_s:g} s")
        time.sleep(max(POLL_S, late_by * waited_s))


def is_mounted(path: Path) -> bool:
    """Return whether a tciafs is mounted at `path`, without touching it; see proc(5), mountinfo."""
    wanted = str(path)
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[4] == wanted and after.startswith("fuse.tciafs "):
            return True
    return False


def processes_marked(mark: str) -> list[int]:
    """Return the living processes that carry `mark`; a zombie has no environment and does not count."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@dataclass(slots=True)
class Mount:
    """A mounted archive: where it is, who serves it, and what it has said."""

    path: Path
    cache: Path
    log_file: Path
    message: str
    """The sentence that said it was ready."""
    pid: int
    mark: str
    process: "subprocess.Popen[str]"
    """The program in the foreground; in the background, the command that started the daemon."""
    _pidfd: int = field(repr=False, default=-1)

    def log(self) -> str:
        """Return what was logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def incoming(self) -> list[str]:
        """Return the names of half-fetched packs in the cache folder."""
        return sorted(path.name for path in (self.cache / "incoming").glob("*/*"))

    def signal(self, number: int) -> None:
        """Send a signal to the daemon."""
        signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End the daemon as a crash does, and see it gone; the mount stays behind, dead."""
        self.signal(signal.SIGKILL)
        self.wait_ended()

    def unmount(self) -> None:
        """Unmount as the command does, and see everything gone; raises TciafsError where that fails.

        Not by that command, which has tests of its own: there are hundreds of mounts, and each process costs
        a fifth of a second.
        """
        clear(unmount(self.path))
        self.wait_ended()
        assert self.exit_code() == 0, f"the daemon ended with {self.exit_code()}:\n{self.log()}"
        assert not is_mounted(self.path)

    @property
    def ended(self) -> bool:
        """Whether the daemon has ended."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def wait_ended(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Return once the daemon has ended and left no process; fails after `timeout_s`."""
        ended, _, _ = select.select([self._pidfd], [], [], timeout_s)
        assert ended, f"the daemon still ran after {timeout_s:g} s:\n{self.log()}"
        self.process.wait(timeout_s)
        until(lambda: not processes_marked(self.mark), "the end of the daemon's processes", timeout_s)

    def exit_code(self) -> int:
        """Return the exit code of the foreground program; of a daemon nobody hears it, so 0."""
        return self.process.wait(END_TIMEOUT_S)

    def close(self) -> None:
        """End and unmount whatever is left, by force."""
        for pid in processes_marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if is_mounted(self.path):
            run("fusermount3", "-u", "-z", "--", self.path)
        self.process.wait(END_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._pidfd)


@contextmanager
def mounted(
    url: str,
    *options: str | Path,
    folder: Path | None = None,
    background: bool = False,
    command: tuple[str, ...] = PROGRAM,
    may_log_errors: bool = False,
) -> Iterator[Mount]:
    """Mount the archive at `url` for the length of the block, and unmount it as the command does.

    `folder` holds mount point, cache and log (None: a temporary one; the same again keeps the cache). A test
    that ends the daemon itself is left its ways: then nothing is unmounted. On the way out nothing may be
    left: no mount, no process, and no error in the log unless `may_log_errors`.
    """
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tciafs-test-")))
        mount = _start(url, options, folder, background, command)
        stack.callback(mount.close)
        yield mount
        if not mount.ended:
            mount.unmount()
        assert not processes_marked(mount.mark), "a process of the mount was left behind"
        assert may_log_errors or " ERROR " not in mount.log(), mount.log()


def _start(
    url: str, options: tuple[str | Path, ...], place: Path, background: bool, command: tuple[str, ...]
) -> Mount:
    path, cache, log_file = place / "mnt", place / "cache", place / "log"
    with suppress(FileExistsError):  # also where a dead mount is, which looks like no folder
        path.mkdir(parents=True)
    words = [*command, str(path), "--url", url, "--cache-dir", str(cache)]
    words += ["--log-file", str(log_file), "--log-level", "info", *map(str, options)]
    mark = uuid.uuid4().hex
    with (place / "complaints").open("w+") as complaints:
        process = subprocess.Popen(
            words if background else [*words, "--foreground"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=marked_environment(mark),
            cwd=Path(__file__).parents[1],
            text=True,
        )
        message = _first_line(process)
        if not message:
            _give_up(process, path, mark)
            raise AssertionError(f"the mount did not start: {(place / 'complaints').read_text()}")
    pid = _daemon(mark, path) if background else process.pid
    return Mount(path, cache, log_file, message, pid, mark, process, os.pidfd_open(pid))


def marked_environment(mark: str) -> dict[str, str]:
    """Return this process's environment without settings of tciafs or a user's files, and with the mark."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TCIAFS_", "XDG_"))}
    users_own = {
        "XDG_CONFIG_HOME": "/nonexistent",
        "XDG_DATA_HOME": os.environ.get("XDG_DATA_HOME", "/nonexistent"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
    return {**kept, **users_own, MARK: mark}


def _first_line(process: "subprocess.Popen[str]") -> str:
    """Return the ready line, empty if the program ended or its time is over."""
    stdout: IO[str] | None = process.stdout
    assert stdout is not None
    readable, _, _ = select.select([stdout], [], [], START_TIMEOUT_S)
    return stdout.readline().strip() if readable else ""


def _give_up(process: "subprocess.Popen[str]", path: Path, mark: str) -> None:
    process.kill()
    process.wait(END_TIMEOUT_S)
    for pid in processes_marked(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if is_mounted(path):
        run("fusermount3", "-u", "-z", "--", path)
    if process.stdout is not None:
        process.stdout.close()


def _daemon(mark: str, path: Path) -> int:
    """Return the process that serves a mount in the background."""
    wanted = b"\0tciafs.daemon\0" + os.fsencode(path)
    (found,) = (pid for pid in processes_marked(mark) if wanted in Path(f"/proc/{pid}/cmdline").read_bytes())
    return found
