"""The daemon's end of the worker processes: a Fetcher that hands each series to a process of its own.

Processes are started when needed, kept for the next series, and killed when their download is cancelled
or they say something unintelligible. Used from the daemon's one thread.
"""

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from tciafs.archives.nbia import NbiaConfig
from tciafs.errors import TciafsError, error_named
from tciafs.model import Series
from tciafs.store.download import Announcements
from tciafs.worker.messages import (
    Arrived,
    Failed,
    Fetch,
    Finished,
    Frames,
    Progress,
    Report,
    Verified,
    framed,
)

__all__ = ["WorkerPool"]

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
REAP_PATIENCE_S = 2.0


class WorkerPool:
    """Fetches series of one archive in worker processes. Use `WorkerPool.running`."""

    def __init__(self, archive: Callable[[], NbiaConfig], retries: int) -> None:
        self._archive = archive
        self._retries = retries
        self._idle: list[_Worker] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, archive: Callable[[], NbiaConfig], retries: int) -> AsyncIterator["WorkerPool"]:
        """Start with one process warm, so that the first series does not wait for Python to start.

        `archive` gives the configuration for each series: what was learnt of a server is in it.
        """
        pool = cls(archive, retries)
        pool._idle.append(await _Worker.start())
        try:
            yield pool
        finally:
            for worker in pool._idle:
                await worker.kill()

    async def fetch(self, series: Series, pack: Path, announce: Announcements) -> None:
        """See `store.Fetcher.fetch`."""
        worker = await self._take()
        try:
            await worker.carry_out(Fetch(series, str(pack), self._archive(), self._retries), announce)
        except TciafsError:
            self._give_back(worker)
            raise
        except BaseException:
            await worker.kill()
            raise
        self._give_back(worker)

    async def _take(self) -> "_Worker":
        while self._idle:
            if (worker := self._idle.pop()).alive:
                return worker
        return await _Worker.start()

    def _give_back(self, worker: "_Worker") -> None:
        if worker.alive:
            self._idle.append(worker)


class _Worker:
    """One worker process and the pipe to it."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._frames = Frames()
        self._decoder = msgspec.msgpack.Decoder(Report)

    @classmethod
    async def start(cls) -> "_Worker":
        # In a session of its own: Ctrl-C in a terminal is for the daemon alone.
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tciafs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        return cls(process)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def carry_out(self, command: Fetch, announce: Announcements) -> None:
        """Send a command and pass on what the process reports, until it is done. Raises TciafsError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            await self._process.stdin.send_all(framed(command))
        except trio.BrokenResourceError:
            raise self._died() from None
        while data := await self._process.stdout.receive_some(READ_BYTES):
            for body in self._frames.feed(bytes(data)):
                if _pass_on(self._decoder.decode(body), announce):
                    return
        raise self._died()

    def _died(self) -> TciafsError:
        return TciafsError(f"the worker process ended unexpectedly (status {self._process.poll()})")

    async def kill(self) -> None:
        """End the process at once and see that it is gone."""
        self._process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(REAP_PATIENCE_S):
            await self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(REAP_PATIENCE_S):
                    await stream.aclose()


def _pass_on(report: Report, announce: Announcements) -> bool:
    """Hand a report to whoever asked; return True if it was the last one. Raises TciafsError."""
    match report:
        case Arrived(image):
            announce.image(image)
        case Progress(received_bytes):
            announce.progress(received_bytes)
        case Verified(layout):
            announce.verified(layout)
        case Finished():
            return True
        case Failed(error, message):
            raise error_named(error, message)
    return False
