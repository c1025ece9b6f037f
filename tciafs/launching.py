"""The mount of a command: in a daemon, with a word when it is ready, or in the command's own process.

A daemon is a new Python process, not a fork: threads, epoll and SQLite do not survive one. It gets its
settings on stdin, where no process list shows them. Two processes import side by side, so what a command does
not need to begin a daemon is imported behind that.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from tciafs.errors import TciafsError, error_named
from tciafs.filesystem.mountpoint import is_automount
from tciafs.log_files import log_file_of, open_log
from tciafs.settings import Settings

__all__ = ["run_in_foreground", "start"]

START_TIMEOUT_S = 90.0
"""Python, FUSE, the first look at the archive, the lease of a daemon that may be dead elsewhere: 50 s."""

END_TIMEOUT_S = 5.0
"""How long a daemon that is told to end may take to unmount."""


def start(settings: Settings, mountpoint: Path) -> str:
    """Start a daemon and return its first message once the mount answers. Raises TciafsError.

    What a daemon that takes long has to say meanwhile goes to stderr. One that does not come so far, because
    of Ctrl-C, its silence or an error, is told to end.
    """
    log_file = log_file_of(settings)
    with open_log(log_file) as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tciafs.daemon", os.fsencode(mountpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            # An automount lets only the process group of who mounts there come near: see `main`.
            start_new_session=not is_automount(mountpoint),
            cwd="/",
        )
    try:
        message = _ready_message(process, _encode(settings), log_file)
    except BaseException:
        _end(process)
        raise
    process.returncode = 0  # it outlives us, and nobody is to wait for it
    return message


def _ready_message(process: "subprocess.Popen[bytes]", settings: bytes, log_file: Path) -> str:
    for line in _lines(process, settings):
        if line is None:
            raise TciafsError(f"the daemon did not answer within {START_TIMEOUT_S:g} s; see {log_file}")
        try:
            word = json.loads(line)
        except ValueError:
            break
        if "waiting" in word:
            _say_waiting(word["waiting"])
            continue
        if "error" in word:
            raise error_named(word["error"], word["message"])
        return str(word["message"])
    raise TciafsError(f"the daemon ended without a word; see {log_file}")


def _lines(process: "subprocess.Popen[bytes]", settings: bytes) -> Iterator[bytes | None]:
    """Yield what a daemon says when given its settings, line by line; None once it is silent for too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        with suppress(BrokenPipeError):  # it ended before it read them, which its silence will tell
            process.stdin.write(settings)
        process.stdin.close()
        while select.select([process.stdout], [], [], START_TIMEOUT_S)[0]:
            if not (line := process.stdout.readline()):
                return
            yield line
        yield None


def _say_waiting(message: str) -> None:
    click.echo(f"tciafs: {message}", err=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for tell in (process.terminate, process.kill):
        tell()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
            return


def run_in_foreground(settings: Settings, mountpoint: Path, handed: int | None = None) -> None:
    """Mount and serve until unmounted; log to stderr, and to the log file if one is set.

    Under systemd (Type=notify) the readiness goes to its socket. `handed` is the descriptor of a mount that
    was made for this process. Raises TciafsError.
    """
    from tciafs import daemon, logs, systemd

    logs.start_logging(settings, in_background=False)

    def ready(message: str) -> None:
        click.echo(message.encode(errors="surrogateescape"))
        systemd.say_ready(message)

    try:
        daemon.serve(settings, mountpoint, ready, _say_waiting, handed)
    finally:
        systemd.notify("STOPPING=1")


def _encode(settings: Settings) -> bytes:
    import msgspec  # 10 ms, in which the daemon begins

    return msgspec.json.encode(settings, enc_hook=str)
