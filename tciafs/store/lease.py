"""Whose the cache folder is: one daemon at a time.

Defined here and only here: the file that says so.
"""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tciafs.errors import Unusable

__all__ = ["holding"]

LOCK_PATIENCE_S = 5.0
"""How long to wait for the daemon of a mount that is just going away."""

LOCK_RETRY_S = 0.1


@asynccontextmanager
async def holding(folder: Path) -> AsyncIterator[None]:
    """Have the cache folder, which is made if need be, for this process alone.

    Raises Unusable if another daemon has it, or if it cannot be used.
    """
    lock = _open_lock(folder)
    try:
        await _lock(lock, folder)
        yield
    finally:
        os.close(lock)


async def _lock(lock: int, folder: Path) -> None:
    deadline = trio.current_time() + LOCK_PATIENCE_S
    try:
        while not _try_lock(lock):
            if trio.current_time() >= deadline:
                raise Unusable(
                    f"another tciafs uses the cache folder {folder}; give this mount its own --cache-dir"
                )
            await trio.sleep(LOCK_RETRY_S)
    except OSError as error:
        raise Unusable(f"the cache folder {folder} cannot be locked: {error.strerror}") from error


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(f"the cache folder {folder} cannot be used: {error.strerror}") from error
