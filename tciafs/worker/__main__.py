"""`python -m tciafs.worker`: fetch series and list collections, on command from stdin until stdin ends.

Commands and reports are `messages`; what anybody else prints on stdout goes to stderr. When the daemon
dies, its end of the pipe closes and so does this process, also in the middle of a series.
"""

import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from tciafs import starting  # noqa: F401, before all that imports httpx
from tciafs.archives.http.client import Bearer
from tciafs.archives.opening import AnyArchive, ArchiveConfig, open_archive
from tciafs.errors import NoSpace, SlowDown, TciafsError, error_named
from tciafs.model import Series
from tciafs.private import be_private
from tciafs.store.disk_errors import translate_disk_error
from tciafs.store.download import Grant
from tciafs.worker.fetching import fetch_series
from tciafs.worker.messages import (
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
    Survey,
    Surveyed,
    TokenGiven,
    TokenWanted,
    ToWorker,
    framed,
)

log = logging.getLogger("tciafs.worker")

READ_BYTES = 64 * 1024
LONGEST_RECORD = 10_000

MEMORY_BYTES = 1 << 30
"""What a process may take for its data: twenty times what it takes for any series, so that a mistake, or a
server that is after our memory, costs a series and not the machine."""


class Worker:
    """Does one thing at a time; keeps its archive, and so its connections, between them."""

    def __init__(
        self,
        tell: Callable[[Report], None],
        bearer: Bearer | None = None,
        grow_to: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        self._tell = tell
        self._bearer = bearer
        self._grow_to = grow_to or _refuse_to_grow
        self._config: ArchiveConfig | None = None
        self._archive: AnyArchive | None = None

    async def serve(self, commands: trio.MemoryReceiveChannel[Command]) -> None:
        """Carry out commands until there are no more."""
        async for command in commands:
            try:
                logging.getLogger("tciafs").setLevel(command.log_level)
                await self._carry_out(command)
            except TciafsError as error:
                self._report(error)
            except OSError as error:
                self._report(translate_disk_error(error))
            except Exception as error:
                log.exception("%s failed in an unexpected way", type(command).__name__)
                self._report(TciafsError(f"the worker failed: {error!r}"))

    async def _carry_out(self, command: Command) -> None:
        archive = await self._archive_for(command.archive)
        match command:
            case Fetch():
                await fetch_series(
                    archive,
                    command.series,
                    Path(command.pack),
                    self._tell,
                    Grant(command.granted_bytes, self._grow_to, _path(command.earlier), command.held),
                    retries=command.retries,
                    first_wait_s=command.first_wait_s,
                    strict=command.strict,
                )
            case ListCollection():
                await self._list(archive, command)
            case Survey(series):
                await self._survey(archive, series)

    async def _survey(self, archive: AnyArchive, series: Series) -> None:
        if archive.layouts is None:
            raise TciafsError("this archive names no images in advance")
        received_bytes = 0

        def received(size_bytes: int) -> None:
            nonlocal received_bytes
            received_bytes += size_bytes
            self._tell(Progress(received_bytes))

        images = await archive.layouts.layout(series, received)
        self._tell(Surveyed(None if images is None else list(images)))
        self._tell(Finished())

    async def _list(self, archive: AnyArchive, command: ListCollection) -> None:
        # diskcache takes a while to import, which only a worker that lists should pay.
        from tciafs.worker.listing import list_collection

        folder = Path(command.folder)
        await list_collection(archive, command.kind, command.collection, folder, command.asked_at, self._tell)

    def _report(self, failure: TciafsError) -> None:
        pause_s = failure.retry_after_s if isinstance(failure, SlowDown) else None
        self._tell(Failed(_name_across_the_pipe(failure), str(failure), pause_s))

    async def _archive_for(self, config: ArchiveConfig) -> AnyArchive:
        if self._archive is None or config != self._config:
            if self._archive is not None:
                await self._archive.aclose()
            self._archive, self._config = open_archive(config, bearer=self._bearer), config
        return self._archive


class DaemonsTokens:
    """The daemon's tokens, which it alone asks the server for; see `http.Bearer`."""

    def __init__(
        self, tell: Callable[[Report], None], answers: trio.MemoryReceiveChannel[TokenGiven]
    ) -> None:
        self._tell = tell
        self._answers = answers
        self._asking = trio.Lock()

    async def token(self) -> str | None:
        """Return the token for the next request. Raises what the daemon failed with."""
        return await self._ask(None)

    async def renewed(self, refused: str) -> str | None:
        """Return what to ask with instead of a refused token. Raises as `token`."""
        return await self._ask(refused)

    async def _ask(self, refused: str | None) -> str | None:
        async with self._asking:
            self._tell(TokenWanted(refused))
            answer = await self._answers.receive()
        if answer.error:
            raise error_named(answer.error, answer.message)
        return answer.token


class DaemonsRoom:
    """The room in the cache, which the daemon divides."""

    def __init__(
        self, tell: Callable[[Report], None], answers: trio.MemoryReceiveChannel[Granted | NotGranted]
    ) -> None:
        self._tell = tell
        self._answers = answers

    async def grow_to(self, size_bytes: int) -> int:
        """Return how large the pack may be, `size_bytes` or more. Raises NoSpace."""
        self._tell(NeedsRoom(size_bytes))
        match await self._answers.receive():
            case Granted(granted_bytes):
                return granted_bytes
            case NotGranted(message):
                raise NoSpace(message)


async def _refuse_to_grow(size_bytes: int) -> int:
    raise NoSpace(f"there is nobody to ask for {size_bytes:,} bytes")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _name_across_the_pipe(failure: TciafsError) -> str:
    """Return the nearest class that `errors` knows: archives have errors of their own."""
    return next(kind.__name__ for kind in type(failure).__mro__ if kind.__module__ == TciafsError.__module__)


class Reports:
    """The daemon's ear: the pipe that was stdout. Any thread may speak."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._speaking = threading.Lock()

    def tell(self, report: Report) -> None:
        """Send a report; the pipe's back-pressure is wanted. Ends the process if the daemon is gone."""
        data = framed(report)
        try:
            with self._speaking:
                while data:
                    data = data[os.write(self._descriptor, data) :]
        except BrokenPipeError:
            os._exit(0)  # nobody is left to be told of anything, and the next daemon tidies up


class LogsToDaemon(logging.Handler):
    """Has the daemon log what this process has to say, so that one process writes the log."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        super().__init__()
        self._tell = tell
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, cut to what a message may have."""
        self._tell(Logged(record.levelno, record.name, self.format(record)[:LONGEST_RECORD]))


async def listen(
    descriptor: int,
    commands: trio.MemorySendChannel[Command],
    tokens: trio.MemorySendChannel[TokenGiven],
    grants: trio.MemorySendChannel[Granted | NotGranted],
    nursery: trio.Nursery,
) -> None:
    """Pass on commands, and answers to this process, as they come; when there can be no more, end all."""
    frames, decoder = Frames(), msgspec.msgpack.Decoder(ToWorker)
    async with trio.lowlevel.FdStream(descriptor) as stream:
        while data := await stream.receive_some(READ_BYTES):
            for body in frames.feed(bytes(data)):
                match decoder.decode(body):
                    case TokenGiven() as answer:
                        await tokens.send(answer)
                    case Granted() | NotGranted() as answer:
                        await grants.send(answer)
                    case command:
                        await commands.send(command)
    nursery.cancel_scope.cancel()


async def run(commands_descriptor: int, reports_descriptor: int) -> None:
    """Serve the daemon until it goes away."""
    send_command, commands = trio.open_memory_channel[Command](0)
    send_token, tokens = trio.open_memory_channel[TokenGiven](1)
    send_grant, grants = trio.open_memory_channel[Granted | NotGranted](1)
    tell = Reports(reports_descriptor).tell
    logging.basicConfig(level=logging.WARNING, handlers=[LogsToDaemon(tell)], force=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, commands_descriptor, send_command, send_token, send_grant, nursery)
        worker = Worker(tell, DaemonsTokens(tell, tokens), DaemonsRoom(tell, grants).grow_to)
        await worker.serve(commands)


def bound_memory() -> None:
    """Let the process have no more memory than MEMORY_BYTES, or than it may have anyway."""
    _, most_bytes = resource.getrlimit(resource.RLIMIT_DATA)
    bound = MEMORY_BYTES if most_bytes == resource.RLIM_INFINITY else min(MEMORY_BYTES, most_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, most_bytes))


def main() -> None:
    """Run the worker process."""
    be_private()
    bound_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then ends us
    logging.getLogger("stamina").setLevel(logging.ERROR)
    commands, reports = os.dup(sys.stdin.fileno()), os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no report
    trio.run(run, commands, reports)


if __name__ == "__main__":
    main()
