"""The mount as a process: in the foreground, or in the background with a word when it is ready.

A daemon is a new Python process, not a fork: threads, epoll and SQLite do not survive one. It gets its
settings on stdin, where no process list shows them, and answers with one line on stdout: that the mount
is there, or why not.
"""

import gc
import json
import logging
import os
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from tciafs import logs, starting, systemd
from tciafs.errors import TciafsError, error_named
from tciafs.filesystem.mountpoint import is_automount
from tciafs.settings import Settings

__all__ = ["run_in_foreground", "start"]

log = logging.getLogger("tciafs")

START_TIMEOUT_S = 90.0
"""Python, FUSE, the first look at the archive, the lease of a daemon that may be dead elsewhere: 50 s."""

END_TIMEOUT_S = 5.0
"""How long a daemon that is told to end may take to unmount."""


def run_in_foreground(settings: Settings, mountpoint: Path, handed: int | None = None) -> None:
    """Mount and serve until unmounted; log to stderr, and to the log file if one is set.

    Under systemd (Type=notify) the readiness goes to its socket. `handed` is the descriptor of a mount that
    was made for this process. Raises TciafsError.
    """
    logs.start_logging(settings, in_background=False)

    def ready(message: str) -> None:
        click.echo(message.encode(errors="surrogateescape"))
        systemd.say_ready(message)

    try:
        _serve(settings, mountpoint, ready, _say_waiting, handed)
    finally:
        systemd.notify("STOPPING=1")


def start(settings: Settings, mountpoint: Path) -> str:
    """Start a daemon and return its first message once the mount answers. Raises TciafsError.

    What a daemon that takes long has to say meanwhile goes to stderr. One that does not come so far, because
    of Ctrl-C, its silence or an error, is told to end.
    """
    log_file = logs.log_file_of(settings)
    with logs.open_log(log_file) as errors:
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


def main() -> None:
    """Be the daemon: `python -m tciafs.daemon MOUNTPOINT`, settings on stdin."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings, dec_hook=_decode_path)
    logs.start_logging(settings, in_background=True)

    def ready(message: str) -> None:
        if os.getpgrp() != os.getpid():
            os.setsid()
        _say({"message": message})

    try:
        _serve(settings, Path(sys.argv[1]), ready, lambda message: _tell({"waiting": message}))
    except TciafsError as error:
        log.error("%s", error)
        _say({"error": type(error).__name__, "message": str(error)})
        sys.exit(error.exit_code)
    except BaseException:
        log.exception("the mount ended in an unexpected way")
        raise


def _serve(
    settings: Settings,
    mountpoint: Path,
    ready: Callable[[str], None],
    waiting: Callable[[str], None],
    handed: int | None = None,
) -> None:
    with starting.without_collector():
        from tciafs.archives.http.asking import read_certificates_ahead

        read_certificates_ahead()
        import trio

        from tciafs.filesystem.mount import run_mount

    _be_private()
    # All readers wait for the collector, and what was imported stays: to look through that takes it 9 ms.
    gc.freeze()
    try:
        trio.run(partial(run_mount, settings, mountpoint, ready, handed, waiting))
    except BaseExceptionGroup as group:
        # Nurseries wrap what ends them; the user's mistake is somewhere inside.
        if (known := _first_known(group)) is not None:
            raise known from None
        raise


def _be_private() -> None:
    """Let nobody else read what this process and its workers write, be it a file or a core dump."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _first_known(group: BaseExceptionGroup[BaseException]) -> TciafsError | None:
    for error in group.exceptions:
        if isinstance(error, TciafsError):
            return error
        if isinstance(error, BaseExceptionGroup) and (known := _first_known(error)):
            return known
    return None


def _tell(word: dict[str, str]) -> None:
    """Tell the process that started us something before the answer."""
    with suppress(BrokenPipeError):  # it was killed while it waited
        sys.stdout.write(json.dumps(word) + "\n")
        sys.stdout.flush()


def _say(word: dict[str, str]) -> None:
    """Answer the process that started us, once; nobody reads what comes later."""
    if sys.stdout.closed:
        return
    with suppress(BrokenPipeError):  # it was killed while it waited
        sys.stdout.write(json.dumps(word) + "\n")
        sys.stdout.close()
    os.close(1)
    os.open(os.devnull, os.O_WRONLY)


def _encode(settings: Settings) -> bytes:
    return msgspec.json.encode(settings, enc_hook=str)


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


if __name__ == "__main__":
    main()
