"""Lets go of requests whose process was told to die, so that Ctrl-C works while a download is awaited.

pyfuse3 does not show FUSE_INTERRUPT to its handlers, and a process that waits in lookup, open or readdir
cannot even be killed before the answer comes. So a task of the mount looks at the waiting processes in
/proc every tenth of a second and cancels the request of whoever has a deliverable signal. No nursery and
no task per request.
"""

import signal
from pathlib import Path
from types import TracebackType

import trio

from tciafs.errors import Interrupted

__all__ = ["Interrupts", "has_deliverable_signal"]

LOOK_EVERY_S = 0.1

HARMLESS = sum(
    1 << (number - 1)
    for number in (signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGPROF, signal.SIGVTALRM)
)
"""Signals that arrive in ordinary work (timers, resized terminals, Go's scheduler) and end nothing."""


class Interrupts:
    """The requests that wait, and for which process each does."""

    def __init__(self) -> None:
        self._waiting: dict[trio.CancelScope, int] = {}
        self._somebody_waits = trio.Event()
        self._closed = False

    def watching(self, pid: int) -> "_Watch":
        """Return a context to wait in on behalf of process or thread `pid`.

        It raises Interrupted when the wait must end.
        """
        return _Watch(self, pid)

    def begin(self, scope: trio.CancelScope, pid: int) -> None:
        """Cancel a wait for `pid` from now on when it must end: at once if the mount is going away."""
        self._waiting[scope] = pid
        self._somebody_waits.set()
        if self._closed:
            scope.cancel()

    def end(self, scope: trio.CancelScope) -> None:
        """Leave a wait alone from now on."""
        del self._waiting[scope]

    async def run(self) -> None:
        """Look at the waiting processes for as long as there are any, for ever."""
        while True:
            await self._somebody_waits.wait()
            await trio.sleep(LOOK_EVERY_S)
            if not self._waiting:
                self._somebody_waits = trio.Event()
            for scope, pid in list(self._waiting.items()):
                if pid and has_deliverable_signal(pid):
                    scope.cancel()

    def close(self) -> None:
        """Let go of all requests, now and from now on: the mount is going away."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()


class _Watch:
    """A wait of one request; a class, since a generator took an eighth of the daemon's time in a walk."""

    __slots__ = ("_interrupts", "_pid", "_scope")

    def __init__(self, interrupts: Interrupts, pid: int) -> None:
        self._interrupts = interrupts
        self._pid = pid
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._interrupts.begin(self._scope, self._pid)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._interrupts.end(self._scope)
        is_over = bool(self._scope.__exit__(kind, error, trace))
        if self._scope.cancelled_caught:
            raise Interrupted(f"process {self._pid} was interrupted") from None
        return is_over


def has_deliverable_signal(pid: int) -> bool:
    """Return True if thread `pid` has a signal that it would act on; see proc(5).

    Who is gone has none: the kernel keeps a process until its request is answered, so it is not the one
    who waits. It opened a folder that another thread, or a child of it, is reading now.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return False
    masks = {
        key: int(value, 16)
        for key, _, value in (line.partition(":") for line in status.splitlines())
        if key in ("SigPnd", "ShdPnd", "SigBlk", "SigIgn")
    }
    if len(masks) < 4:
        return False
    pending = masks["SigPnd"] | masks["ShdPnd"]
    return bool(pending & ~masks["SigBlk"] & ~masks["SigIgn"] & ~HARMLESS)
