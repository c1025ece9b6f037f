"""Whose the cache folder is: one daemon at a time, also where file systems of a network know no locks.

A lease is a file `lease/N` that is made once (O_EXCL), says who made it, and is touched again and again by
its holder. The highest number counts. Who finds it let go (`N.free`), or its holder dead, makes N+1: only one
can, and the holder of N sees that it has lost. Numbers never come back, so that nobody who is slow can take
what is somebody else's. Dead is who is gone for certain (see `holder`), or does not touch its lease while it
is watched for `WATCH_S`; times of different machines are not compared. Defined here and only here: those
files. Must not know what is in the folder.
"""

import logging
import os
import shlex
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from tciafs.errors import Unusable
from tciafs.store.disk import make_folder
from tciafs.store.holder import Holder, this_process

__all__ = ["Lease"]

log = logging.getLogger(__name__)

TOUCH_EVERY_S = 10.0
WATCH_S = 40.0
"""Four touches; also how long a holder that cannot touch its lease may believe that it still has it."""

LEAVING_PATIENCE_S = 5.0
"""How long to wait for the daemon of a mount that is just going away, or that just writes its lease."""

LOOK_EVERY_S = 0.1
FREE = ".free"


@dataclass(frozen=True, slots=True)
class _Claim:
    """A lease as it was found; `holder` is None while it is being written, or if it makes no sense."""

    path: Path
    number: int
    is_free: bool
    holder: Holder | None
    touched_ns: int


def _boot_clock() -> float:
    """Return seconds that also pass while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The right to write to a cache folder, for as long as `lost` is None: else a sentence that says why."""

    def __init__(self, folder: Path, number: int, clock: Callable[[], float] = _boot_clock) -> None:
        self.lost: str | None = None
        self._folder = folder
        self._file = folder / "lease" / str(number)
        self._number = number
        self._clock = clock
        self._touched_at = clock()

    @classmethod
    @asynccontextmanager
    async def holding(cls, folder: Path, holder: Holder | None = None) -> AsyncIterator["Lease"]:
        """Have the cache folder, which is made if need be, for this process alone.

        Raises Unusable if another daemon has it, or if it cannot be used.
        """
        try:
            _make_folders(folder)
            lease = await cls._take(folder, holder or this_process())
        except OSError as error:
            raise Unusable(f"the cache folder {folder} cannot be used: {error.strerror}") from error
        try:
            yield lease
        finally:
            lease._let_go()

    @classmethod
    async def _take(cls, folder: Path, holder: Holder) -> "Lease":
        """Return the lease once it is ours. Raises Unusable, OSError."""
        while True:
            latest = _latest(folder)
            if latest is None or latest.is_free or await _has_ended(folder, latest, holder):
                lease = cls(folder, latest.number + 1 if latest is not None else 1)
                if lease._make(holder):
                    return lease

    def _make(self, holder: Holder) -> bool:
        """Make the file, unless another process was first."""
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(holder))
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            self._let_go()
            raise
        # Who was so slow that its number had passed already has taken nothing.
        claims = _claims(self._file.parent)
        if any(claim.number > self._number for claim in claims):
            self._file.unlink(missing_ok=True)
            return False
        for claim in claims:
            if claim.number < self._number:
                claim.path.unlink(missing_ok=True)
        return True

    async def keep(self) -> str:
        """Touch the lease until it is lost, and return the sentence that says why."""
        while self.lost is None:
            await trio.sleep(TOUCH_EVERY_S)
            await trio.to_thread.run_sync(self.touch)
        return self.lost

    def touch(self) -> None:
        """Show that the holder is alive, and look whether it still is the holder; blocking."""
        try:
            os.utime(self._file)
            latest = _latest(self._folder)
        except FileNotFoundError:
            latest = None
        except OSError as error:
            self._note_failure(error)
            return
        if latest is None or latest.number != self._number:
            self.lost = f"the cache folder {self._folder} was taken over by another tciafs"
        self._touched_at = self._clock()

    def _note_failure(self, error: OSError) -> None:
        if self._clock() - self._touched_at < WATCH_S:
            log.warning("the lease of the cache folder could not be renewed: %s", error.strerror)
        else:
            self.lost = f"the cache folder {self._folder} is out of reach: {error.strerror}"

    def _let_go(self) -> None:
        with suppress(OSError):  # somebody else has it, or will find that this process is gone
            self._file.rename(self._file.with_name(f"{self._number}{FREE}"))


async def _has_ended(folder: Path, claim: _Claim, holder: Holder) -> bool:
    """Return whether a lease has ended without being let go; False if it is another by now: look again.

    Raises Unusable where its holder is alive, OSError.
    """
    is_guess = claim.holder is not None and not holder.sees(claim.holder)
    if is_guess and not _is_dead(claim, holder):
        log.warning(
            "the cache folder belongs to %s: waiting %g s to see if it is alive", claim.holder, WATCH_S
        )
    give_up_at = trio.current_time() + (WATCH_S if is_guess else LEAVING_PATIENCE_S)
    while (latest := _latest(folder)) is not None and latest.path == claim.path:
        if _is_dead(latest, holder):
            return True
        if latest.holder != claim.holder:
            return False  # it is written now
        if trio.current_time() >= give_up_at:
            if is_guess or claim.holder is None:
                return True
            break
        if is_guess and latest.touched_ns != claim.touched_ns:
            break
        await trio.sleep(LOOK_EVERY_S)
    else:
        return False
    raise Unusable(
        f"another tciafs ({claim.holder}) uses the cache folder {folder}; give this mount its own --cache-dir"
    )


def _make_folders(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise Unusable(
            f"the cache folder {folder} belongs to somebody else; give this mount its own --cache-dir"
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise Unusable(f"others may write to the cache folder {folder}; chmod 700 {shlex.quote(str(folder))}")
    make_folder(folder / "lease")


def _is_dead(claim: _Claim, holder: Holder) -> bool:
    return claim.holder is not None and holder.knows_dead(claim.holder, claim.touched_ns / 1e9)


def _latest(folder: Path) -> _Claim | None:
    """Return the lease that counts, None if there never was one."""
    return max(_claims(folder / "lease"), key=lambda claim: claim.number, default=None)


def _claims(folder: Path) -> list[_Claim]:
    """Return the leases in a folder, which are few."""
    found = []
    for file in folder.iterdir():
        number = file.name.removesuffix(FREE)
        with suppress(FileNotFoundError):
            if number.isascii() and number.isdecimal():
                found.append(_claim(file, int(number)))
    return found


def _claim(file: Path, number: int) -> _Claim:
    # Opened before it is asked for its time: network file systems then ask the server.
    with file.open("rb") as opened:
        status = os.fstat(opened.fileno())
        try:
            holder = msgspec.json.decode(opened.read(), type=Holder)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            holder = None
    return _Claim(file, number, file.name.endswith(FREE), holder, status.st_mtime_ns)
