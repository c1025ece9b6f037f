"""What the benchmarks play on: mounts of tciafs and of its peers, and commands run to their end.

Every wait has a bound, and whatever happens inside a block, its mount is gone and its processes have
ended behind it. A mount's processes are known by the mark of tests/mounting.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.mounting import marked_environment, processes_marked, until

__all__ = [
    "FAILURES",
    "Mounted",
    "bindfs_mounted",
    "cat",
    "drop_pages",
    "ext4_made",
    "ext4_mounted",
    "line_before",
    "rclone_cached",
    "rclone_mounted",
    "rclone_serving",
    "run",
    "tciafs_mounted",
]

RUN_TIMEOUT_S = 600.0
END_TIMEOUT_S = 60.0
PROGRAM = (sys.executable, "-m", "tciafs")
FAILURES = (subprocess.SubprocessError, OSError)
"""What `run` raises: the command failed, took too long, or is not there."""


def run(
    *command: str | Path,
    stdin: int | None = None,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
    timeout_s: float = RUN_TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end. Raises CalledProcessError, or TimeoutExpired having killed it."""
    words = [str(word) for word in command]
    with subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, env=environment) as process:
        # Popen.wait with a timeout looks only every 50 ms whether it is over.
        watched = os.pidfd_open(process.pid)
        try:
            ended, _, _ = select.select([watched], [], [], timeout_s)
        finally:
            os.close(watched)
            if process.poll() is None:
                process.kill()
    if not ended:
        raise subprocess.TimeoutExpired(words, timeout_s)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)


def cat(files: Sequence[Path]) -> None:
    """Read files one after the other as cat does."""
    run("cat", "--", *files)


def drop_pages(files: Sequence[Path]) -> None:
    """Drop what the kernel has cached of files, so that they are read from what is behind them."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount in the background; `started_s` is how long its command took to return."""

    path: Path
    started_s: float
    mark: str

    def processes(self) -> list[int]:
        """Return the processes that serve it, the daemon first."""
        return sorted(processes_marked(self.mark), key=_started_at)


def _started_at(pid: int) -> int:
    """Return when a process started, in ticks since boot; see proc(5), stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@contextmanager
def tciafs_mounted(url: str, folder: Path, *more_options: str) -> Iterator[Mounted]:
    """Mount an archive below `folder`, where its cache is too: empty at first, the same the next time."""
    mountpoint, mark = folder / "mnt", uuid.uuid4().hex
    mountpoint.mkdir(parents=True, exist_ok=True)
    environment = marked_environment(mark)
    options = ["--url", url, "--cache-dir", str(folder / "cache"), "--log-file", str(folder / "log")]
    try:
        start = time.perf_counter()
        run(*PROGRAM, mountpoint, *options, *more_options, environment=environment)
        yield Mounted(mountpoint, time.perf_counter() - start, mark)
    finally:
        with suppress(*FAILURES):
            run(*PROGRAM, "umount", mountpoint, stderr=subprocess.DEVNULL, timeout_s=END_TIMEOUT_S)
        _put_away(mountpoint, mark)


def _put_away(mountpoint: Path, mark: str) -> None:
    """See the processes ended, by force if it takes too long, and nothing mounted."""
    try:
        until(lambda: not processes_marked(mark), "the end of the mount", END_TIMEOUT_S)
    except AssertionError:
        for pid in processes_marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _unmount(mountpoint)


def _unmount(mountpoint: Path) -> None:
    if _has_mount(mountpoint):
        run("fusermount3", "-u", "-z", mountpoint, timeout_s=END_TIMEOUT_S)


def _has_mount(path: Path) -> bool:
    """Return whether anything is mounted at `path`, without touching it."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return any(line.split(" ")[4] == str(path) for line in lines)


@contextmanager
def line_before(url: str, folder: Path, *options: str | Path) -> Iterator[str]:
    """Put the server and the line of tests/bench/line before a sample archive, and give their URL."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.bench.line", url, "--folder", folder, *options]
    words = [str(word) for word in command]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not (line := process.stdout.readline().strip()):
                raise ChildProcessError("the line before the sample archive did not start")
            yield line
        finally:
            process.kill()


@contextmanager
def bindfs_mounted(plain: Path, mountpoint: Path) -> Iterator[Path]:
    """Mount a plain folder through bindfs, a FUSE file system in C."""
    mountpoint.mkdir()
    run("bindfs", "--no-allow-other", "-r", plain, mountpoint)
    try:
        yield mountpoint
    finally:
        _unmount(mountpoint)


def ext4_made(image: Path, size_bytes: int, inodes: int) -> bool:
    """Make a file system in a file; return whether it can be mounted, which takes root and loop devices."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    try:
        run("mkfs.ext4", "-q", "-N", str(inodes), image)
        with ext4_mounted(image, image.with_name(f"{image.name}-tried")):
            return True
    except FAILURES:
        return False


@contextmanager
def ext4_mounted(image: Path, mountpoint: Path) -> Iterator[Path]:
    """Mount a file system that is in a file, so that the kernel knows nothing of it, nor of its blocks."""
    mountpoint.mkdir(exist_ok=True)
    drop_pages([image])
    run("mount", "-o", "loop,noatime", image, mountpoint, stderr=subprocess.DEVNULL)
    try:
        yield mountpoint
    finally:
        run("umount", mountpoint, timeout_s=END_TIMEOUT_S)


@contextmanager
def rclone_serving(plain: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Serve a plain folder over HTTP on loopback with rclone, and give its URL, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with _rclone("serve", "http", plain, "--addr", f"127.0.0.1:{port}", "--read-only") as process:
        until(lambda: _answers(port) or _ended(process), "rclone serve")
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def rclone_mounted(what: str | Path, mountpoint: Path, *options: str | Path) -> Iterator[Path]:
    """Mount what is listed at a URL, or a plain folder, through rclone; without options nothing is cached."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    source = (what,) if isinstance(what, Path) else (":http:", "--http-url", what)
    with _rclone("mount", *source, mountpoint, "--read-only", *options) as process:
        try:
            until(lambda: _has_mount(mountpoint) or _ended(process), "rclone mount")
            yield mountpoint
        finally:
            _unmount(mountpoint)


def rclone_cached(url: str, folder: Path) -> AbstractContextManager[Path]:
    """Mount what is listed at a URL through rclone, with a cache of whole files that it finds again."""
    cache = ("--vfs-cache-mode", "full", "--cache-dir", folder / "cache")
    patience = ("--contimeout", "5s", "--timeout", "5s")
    return rclone_mounted(url, folder / "mnt", *cache, *patience, "--log-file", "/dev/null")


@contextmanager
def _rclone(*words: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run rclone beside the block, without anybody's configuration."""
    command = ["rclone", *map(str, words), "--config", "/dev/null", "--log-level", "ERROR"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_TIMEOUT_S)
            process.kill()


def _ended(process: "subprocess.Popen[bytes]") -> bool:
    if process.poll() is not None:
        raise ChildProcessError(f"rclone ended with {process.returncode}")
    return False


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
