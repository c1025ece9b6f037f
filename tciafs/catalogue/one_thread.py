"""A thread of its own for calls that have to be made in one thread, one after the other."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

import trio

__all__ = ["OneThread"]

P = ParamSpec("P")
T = TypeVar("T")


class OneThread:
    """Makes calls one after the other in a thread that stays the same, as SQLite wants it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "tciafs-listings")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a call returns; who is cancelled leaves it to end by itself."""
        token, over = trio.lowlevel.current_trio_token(), trio.Event()

        def wake(_: "Future[T]") -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(over.set)

        future = self._executor.submit(call, *args, **kwargs)
        future.add_done_callback(wake)
        await over.wait()
        return future.result()

    def begin(self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make a call that raises nothing, without waiting for it."""
        self._executor.submit(call, *args, **kwargs)

    def close(self, last: Callable[[], None]) -> None:
        """Make a last call in the thread and end it."""
        self._executor.submit(last)
        self._executor.shutdown()
