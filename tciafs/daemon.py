"""The process of a mount: `python -m tciafs.daemon MOUNTPOINT`, as `launching` starts it.

It gets its settings on stdin, and answers with lines on stdout: why it takes long, and that the mount is
there, or why not.
"""

import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tciafs import logs, starting
from tciafs.errors import TciafsError
from tciafs.private import be_private
from tciafs.settings import Settings
from tciafs.worker.process import process_for_a_mount

__all__ = ["main", "serve"]

log = logging.getLogger("tciafs")

NEW_OBJECTS = 10_000
"""So many are made before the collector looks for cycles among them, which takes it half a millisecond.

A walk leaves folders and listings behind that stay for a while and are in no cycle: with Python's own 700 the
collector took a tenth of a daemon's time.
"""


def main() -> None:
    """Be the daemon: `python -m tciafs.daemon MOUNTPOINT`, settings on stdin."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings, dec_hook=_decode_path)
    logs.start_logging(settings, in_background=True)

    def ready(message: str) -> None:
        if os.getpgrp() != os.getpid():
            os.setsid()
        _say({"message": message})

    try:
        serve(settings, Path(sys.argv[1]), ready, lambda message: _tell({"waiting": message}))
    except TciafsError as error:
        log.error("%s", error)
        _say({"error": type(error).__name__, "message": str(error)})
        sys.exit(error.exit_code)
    except BaseException:
        log.exception("the mount ended in an unexpected way")
        raise


def serve(
    settings: Settings,
    mountpoint: Path,
    ready: Callable[[str], None],
    waiting: Callable[[str], None],
    handed: int | None = None,
) -> None:
    """Mount and serve until unmounted. Raises TciafsError.

    `ready` is called with a sentence once the mount answers, `waiting` while that takes long. `handed` is the
    descriptor of a mount that was made for this process.
    """
    with process_for_a_mount() as worker:
        _serve(settings, worker, mountpoint, ready, waiting, handed)


def _serve(
    settings: Settings,
    worker: "subprocess.Popen[bytes]",
    mountpoint: Path,
    ready: Callable[[str], None],
    waiting: Callable[[str], None],
    handed: int | None,
) -> None:
    with starting.without_collector():
        from tciafs.archives.http.asking import read_certificates_ahead

        read_certificates_ahead()
        import trio

        from tciafs.filesystem.mount import run_mount

    be_private()
    # All readers wait for the collector, and what was imported stays: to look through that takes it 9 ms.
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    try:
        trio.run(partial(run_mount, settings, mountpoint, ready, handed, waiting, worker))
    except BaseExceptionGroup as group:
        # Nurseries wrap what ends them; the user's mistake is somewhere inside.
        if (known := _first_known(group)) is not None:
            raise known from None
        raise


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


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


if __name__ == "__main__":
    main()
