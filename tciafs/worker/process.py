"""The start of a worker's process, and the end of the first one; what it is told and says is in `messages`.

All but the first are ended by the pool that had them started; the first was there before any pool was.
The daemon starts the first one before it imports what it needs itself, so that both import side by side.
Started when the mount was nearly there, it took a processor from who listed the first folder: of 26,255
patients that took 0.07 s longer. So nothing is imported here that takes long.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tciafs.errors import TciafsError

__all__ = ["REAP_PATIENCE_S", "process_for_a_mount", "start_process"]

REAP_PATIENCE_S = 2.0


def start_process() -> "subprocess.Popen[bytes]":
    """Return a new process, with pipes to it and from it. Raises TciafsError where the system has no room."""
    try:
        # In a session of its own: Ctrl-C in a terminal is for the daemon alone. -P: the folder in
        # which somebody mounts may hold a file with the name of a library.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tciafs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise TciafsError(f"a worker process could not be started: {error.strerror}") from error


@contextmanager
def process_for_a_mount() -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process, and see that it is gone at the end of the block. Raises as `start_process` does."""
    process = start_process()
    try:
        yield process
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(REAP_PATIENCE_S)
