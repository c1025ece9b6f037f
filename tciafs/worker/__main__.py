"""`python -m tciafs.worker`: fetch series on command from stdin until stdin ends.

Commands and reports are `messages`; nothing else may be printed on stdout. When the daemon dies, its
end of the pipe closes and so does this process, also in the middle of a series.
"""

import logging
import os
import signal
import sys
from pathlib import Path

import msgspec
import trio

from tciafs.archives.nbia import NbiaArchive, NbiaConfig
from tciafs.errors import NoSpace, TciafsError
from tciafs.worker.fetching import fetch_series
from tciafs.worker.messages import Failed, Fetch, Frames, Report, framed

log = logging.getLogger("tciafs.worker")

READ_BYTES = 64 * 1024


class Worker:
    """Fetches one series at a time; keeps its archive, and so its connections, between them."""

    def __init__(self) -> None:
        self._config: NbiaConfig | None = None
        self._archive: NbiaArchive | None = None

    async def serve(self, commands: trio.MemoryReceiveChannel[Fetch]) -> None:
        """Carry out commands until there are no more."""
        async for command in commands:
            await self._carry_out(command)

    async def _carry_out(self, command: Fetch) -> None:
        try:
            archive = await self._archive_for(command.archive)
            await fetch_series(archive, command.series, Path(command.pack), command.retries, tell)
        except TciafsError as error:
            tell(Failed(type(error).__name__, str(error)))
        except OSError as error:
            tell(Failed(NoSpace.__name__, f"the cache folder cannot be written: {error.strerror}"))
        except Exception as error:
            log.exception("fetching series %s failed in an unexpected way", command.series.series_uid)
            tell(Failed(TciafsError.__name__, f"the worker failed: {error!r}"))

    async def _archive_for(self, config: NbiaConfig) -> NbiaArchive:
        if self._archive is None or config != self._config:
            if self._archive is not None:
                await self._archive.aclose()
            self._archive, self._config = NbiaArchive(config), config
        return self._archive


def tell(report: Report) -> None:
    """Send a report to the daemon; the pipe's back-pressure is wanted."""
    data = framed(report)
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


async def listen(commands: trio.MemorySendChannel[Fetch], nursery: trio.Nursery) -> None:
    """Pass commands on as they come; when stdin ends, end everything."""
    frames, decoder = Frames(), msgspec.msgpack.Decoder(Fetch)
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while data := await stdin.receive_some(READ_BYTES):
            for body in frames.feed(data):
                await commands.send(decoder.decode(body))
    nursery.cancel_scope.cancel()


async def run() -> None:
    """Serve the daemon until it goes away."""
    send, receive = trio.open_memory_channel[Fetch](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, send, nursery)
        await Worker().serve(receive)


def main() -> None:
    """Run the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then ends us
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="worker: %(message)s")
    logging.getLogger("stamina").setLevel(logging.ERROR)
    trio.run(run)


if __name__ == "__main__":
    main()
