"""The daemon's end of the worker processes: each series and each whole collection is one process's work.

Processes are started when needed, kept for the next work, and killed when theirs is cancelled
or they say something unintelligible. Used from the daemon's one thread.
"""

import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TypeAlias

import msgspec
import trio
from trio.abc import ReceiveStream, SendStream

from tciafs.archives.http.client import Bearer
from tciafs.archives.opening import ArchiveConfig
from tciafs.errors import NoSpace, TciafsError, error_named
from tciafs.model import ListedImage, Series
from tciafs.store.download import Announcements, Grant
from tciafs.worker.messages import (
    Answer,
    Arrived,
    Command,
    Failed,
    Fetch,
    Finished,
    Frames,
    Granted,
    ListCollection,
    Logged,
    NeedsRoom,
    NotGranted,
    Progress,
    Report,
    RowReplaced,
    RowsWritten,
    Survey,
    Surveyed,
    TokenGiven,
    TokenWanted,
    Verified,
    framed,
)
from tciafs.worker.process import REAP_PATIENCE_S, start_process

__all__ = ["WorkerPool"]

TellReplaced = Callable[[tuple[str, ...], bytes, bytes], None]
PassOn: TypeAlias = Callable[[Report], Awaitable[Answer | None]]
"""Takes what a worker reports, and returns what it waits for, if it does."""

READ_BYTES = 64 * 1024


class WorkerPool:
    """Fetches series and lists collections of one archive in processes. Use `WorkerPool.running`."""

    def __init__(
        self,
        archive: Callable[[], ArchiveConfig],
        retries: int,
        first_wait_s: float,
        bearer: Bearer | None,
        strict: bool,
    ) -> None:
        self._strict = strict
        self._archive = archive
        self._bearer = bearer
        self._retries = retries
        self._first_wait_s = first_wait_s
        self._idle: list[_Worker] = []
        self._fetching: set[_Worker] = set()
        self._paused = False

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        archive: Callable[[], ArchiveConfig],
        retries: int,
        first_wait_s: float = 1.0,
        bearer: Bearer | None = None,
        strict: bool = False,
        first: "subprocess.Popen[bytes] | None" = None,
    ) -> AsyncIterator["WorkerPool"]:
        """Begin with one process warm, so that the first series does not wait for Python to start.

        `first` is that process, where it was started already; from then on it is the pool's. `archive` gives
        the configuration for each series: what was learnt of a server is in it. A series that fails is tried
        `retries` times more, the first time after about `first_wait_s`. `bearer` has the tokens that workers
        ask for (None: guests). If `strict`, no image is announced before all of its series agrees.
        """
        pool = cls(archive, retries, first_wait_s, bearer, strict)
        pool._idle.append(await _Worker.start() if first is None else _Worker(first))
        try:
            yield pool
        finally:
            for worker in pool._idle:
                await worker.kill()

    async def fetch(self, series: Series, pack: Path, announce: Announcements, grant: Grant) -> None:
        """See `store.Fetcher.fetch`."""
        archive, granted_bytes = self._archive(), grant.size_bytes
        command = Fetch(
            series,
            str(pack),
            archive,
            self._retries,
            self._first_wait_s,
            granted_bytes,
            self._strict,
            _log_level(),
            None if grant.earlier is None else str(grant.earlier),
            grant.held,
        )

        async def pass_on(report: Report) -> Answer | None:
            match report:
                case NeedsRoom(size_bytes):
                    return await _granted(grant, size_bytes)
                case Arrived(image, is_annotation):
                    (announce.annotation if is_annotation else announce.image)(image)
                case Progress(received_bytes):
                    announce.progress(received_bytes)
                case Verified(checks, routes, lacks):
                    if lacks:
                        announce.lacks(lacks)
                    announce.verified(checks, routes)
                case _:
                    pass
            return None

        await self._have_carried_out(command, pass_on)

    def pause(self) -> None:
        """See `store.Fetcher.pause`: the processes stop, and TCP has the server wait, as long as it will."""
        self._paused = True
        for worker in self._fetching:
            worker.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """See `store.Fetcher.resume`; a server that has hung up meanwhile is asked for the rest."""
        self._paused = False
        for worker in self._fetching:
            worker.send_signal(signal.SIGCONT)

    @contextmanager
    def _stopped_by_pauses(self, worker: "_Worker") -> Iterator[None]:
        """Have a process stand still while there is a pause: one that began before the block, too."""
        self._fetching.add(worker)
        if self._paused:
            worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._fetching.discard(worker)
            if self._paused:
                # It was done before it was stopped. Its next work may be a listing, or come after the pause.
                worker.send_signal(signal.SIGCONT)

    async def list_collection(
        self,
        kind: str,
        collection: str,
        folder: Path,
        asked_at: float,
        replaced: TellReplaced,
        written: Callable[[Sequence[tuple[str, bytes]]], None],
    ) -> bool:
        """See `catalogue.Lister.list_collection`."""
        is_partial = False

        async def pass_on(report: Report) -> None:
            nonlocal is_partial
            match report:
                case RowReplaced():
                    replaced(report.question, report.before, report.after)
                case RowsWritten():
                    is_partial = report.is_partial
                    written(report.rows)
                case _:
                    pass

        command = ListCollection(kind, collection, str(folder), asked_at, self._archive(), _log_level())
        await self._have_carried_out(command, pass_on)
        return is_partial

    async def survey(self, series: Series, received: Callable[[int], None]) -> Sequence[ListedImage] | None:
        """See `store.Surveyor.survey`; `received` is told of bytes of images as they come in."""
        images: Sequence[ListedImage] | None = None
        before_bytes = 0

        async def pass_on(report: Report) -> None:
            nonlocal before_bytes, images
            match report:
                case Surveyed():
                    images = report.images
                case Progress(received_bytes):
                    received(received_bytes - before_bytes)
                    before_bytes = received_bytes
                case _:
                    pass

        await self._have_carried_out(Survey(series, self._archive(), _log_level()), pass_on)
        return images

    async def _have_carried_out(self, command: Command, pass_on: PassOn) -> None:
        """Give a command to a process. Raises TciafsError when it fails."""

        async def answer(report: Report) -> Answer | None:
            if isinstance(report, Logged):
                # From here, as this task knows for which request it is.
                logging.getLogger(report.logger).log(report.level, "%s", report.message)
                return None
            return await (self._token_given(report) if isinstance(report, TokenWanted) else pass_on(report))

        worker = await self._take()
        try:
            with self._stopped_by_pauses(worker) if isinstance(command, Fetch) else nullcontext():
                failure = await worker.carry_out(command, answer)
        except BaseException:
            await worker.kill()
            raise
        if type(failure) is TciafsError:
            # Unforeseen in the process: it may have no memory or no threads for the next series either.
            await worker.kill()
        else:
            self._idle.append(worker)
        if failure is not None:
            raise failure

    async def _token_given(self, wanted: TokenWanted) -> TokenGiven:
        if self._bearer is None:
            return TokenGiven(None)
        try:
            if wanted.refused is None:
                return TokenGiven(await self._bearer.token())
            return TokenGiven(await self._bearer.renewed(wanted.refused))
        except TciafsError as error:
            return TokenGiven(None, type(error).__name__, str(error))

    async def _take(self) -> "_Worker":
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await worker.kill()  # for its pipes
        return await _Worker.start()


def _log_level() -> int:
    return logging.getLogger("tciafs").getEffectiveLevel()


async def _granted(grant: Grant, size_bytes: int) -> Granted | NotGranted:
    """Return whether a pack may be as large."""
    try:
        return Granted(await grant.grow_to(size_bytes))
    except NoSpace as error:
        return NotGranted(str(error))


class _Worker:
    """One worker process and the pipes to it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._commands: SendStream = _taken_over(process.stdin)
        self._reports: ReceiveStream = _taken_over(process.stdout)
        self._frames = Frames()
        self._decoder = msgspec.msgpack.Decoder(Report)

    @classmethod
    async def start(cls) -> "_Worker":
        """Return a new process. Raises TciafsError where the system has no room for one."""
        return cls(await trio.to_thread.run_sync(start_process))

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process is still there."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def carry_out(self, command: Command, pass_on: PassOn) -> TciafsError | None:
        """Send a command, and pass on what the process reports; return why it failed, None if it did not.

        Raises TciafsError when the process is of no use any more.
        """
        try:
            await self._commands.send_all(framed(command))
            while data := await self._reports.receive_some(READ_BYTES):
                for body in self._frames.feed(bytes(data)):
                    match self._decoder.decode(body):
                        case Finished():
                            return None
                        case Failed(error, message, retry_after_s):
                            return error_named(error, message, retry_after_s)
                        case news:
                            if (answer := await pass_on(news)) is not None:
                                await self._commands.send_all(framed(answer))
        except trio.BrokenResourceError:
            pass
        except (ValueError, msgspec.MsgspecError) as nonsense:
            raise TciafsError(f"the worker process said something unintelligible: {nonsense}") from nonsense
        raise TciafsError(f"the worker process ended unexpectedly (status {await self._status()})")

    async def _status(self) -> int | None:
        """Return how the process ended, None if it has only closed its pipe."""
        await self._wait()
        return self._process.returncode

    async def _wait(self) -> None:
        """Wait for the process to end, for a while."""
        # Without room for a thread, it is left to whoever asks for its status.
        with trio.move_on_after(REAP_PATIENCE_S), suppress(RuntimeError):
            await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)

    async def kill(self) -> None:
        """End the process at once and see that it is gone."""
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._wait()
        for stream in (self._commands, self._reports):
            with trio.CancelScope(shield=True), trio.move_on_after(REAP_PATIENCE_S):
                await stream.aclose()


def _taken_over(pipe: IO[bytes]) -> trio.lowlevel.FdStream:
    """Return a pipe for trio's use; it is closed for that of others."""
    with pipe:
        return trio.lowlevel.FdStream(os.dup(pipe.fileno()))
