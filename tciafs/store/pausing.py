"""All downloads standing still for a while: those under way, those in the queue, and new ones.

Used from the daemon's one thread.
"""

from collections.abc import Callable, Iterable

import trio

from tciafs.errors import Refused
from tciafs.store.download import Download, Fetcher

__all__ = ["Pausing"]


class Pausing:
    """Has the downloads stand still and go on. `downloads` returns those under way and in the queue.

    `refusal` is what meets whoever wants to begin one, or waits for one; None while they go on.
    """

    def __init__(self, fetcher: Fetcher, downloads: Callable[[], Iterable[Download]]) -> None:
        self._fetcher = fetcher
        self._downloads = downloads
        self._ended = trio.Event()
        self.refusal: Refused | None = None

    def begin(self) -> None:
        """Have all stand still where they are, until `end`; what is here stays readable."""
        self.refusal = Refused("downloads are paused; tciafs resume lets them go on")
        self._fetcher.pause()
        for download in self._downloads():
            download.pause(self.refusal)

    def end(self) -> None:
        """Let all go on where they stood."""
        self.refusal = None
        for download in self._downloads():
            download.resume()
        self._fetcher.resume()
        self._ended.set()
        self._ended = trio.Event()

    async def wait_over(self) -> None:
        """Return once downloads may go on: at once while they do."""
        while self.refusal is not None:
            await self._ended.wait()

    def refuse(self) -> None:
        """Return if a download may begin. Raises Refused."""
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)
