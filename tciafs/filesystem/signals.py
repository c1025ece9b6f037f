"""What signals do to a mount: end it, have the log reopened, or have written down what it is doing.

SIGTERM and SIGINT end it. So does SIGHUP where the mount belongs to a terminal, which has been closed then;
for others, daemons in the background and services, it is the word of logrotate. SIGUSR1 has the stacks of all
threads and the tree of trio's tasks written into the log.
"""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FrameType

import trio
from trio.lowlevel import Task

from tciafs import logs

__all__ = ["Signals", "task_tree"]

TERMINAL = "/dev/tty"
MOST_PLACES = 5


class Signals:
    """Signals as they come, from the moment on when they are `received`."""

    def __init__(self, numbers: AsyncIterator[int], ending: frozenset[int]) -> None:
        self._numbers = numbers
        self._ending = ending

    @classmethod
    @contextmanager
    def received(cls) -> Iterator["Signals"]:
        """Take signals for the length of the block; they wait for `until_one_ends`."""
        ending = {signal.SIGTERM, signal.SIGINT} | ({signal.SIGHUP} if _ends_on_hangup() else set())
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        with trio.open_signal_receiver(*handled) as numbers, logs.stacks_on_signal(signal.SIGUSR1):
            yield cls(numbers, frozenset(ending))

    async def until_one_ends(self) -> None:
        """Obey signals, and return with the first one that ends the mount."""
        async for number in self._numbers:
            if number in self._ending:
                return
            if number == signal.SIGHUP:
                logs.reopen()
            else:
                logs.write_plainly(
                    "\n".join([time.strftime("Tasks at %Y-%m-%d %H:%M:%S:"), *task_tree(), ""])
                )


def _ends_on_hangup() -> bool:
    """Return whether this process belongs to a terminal, and nohup was not asked to let it outlive that."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def task_tree() -> Iterator[str]:
    """Yield a line for each of trio's tasks, below its parent: its name, and where in our code it stands."""
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [(root, 1)]
    while waiting:
        task, depth = waiting.pop()
        yield f"{'  ' * depth}{task.name}{_place(task)}"
        children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        waiting += [
            (child, depth + 1) for child in sorted(children, key=lambda child: child.name, reverse=True)
        ]


def _place(task: Task) -> str:
    """Return where a task waits, the innermost place last, without the parts of trio where all tasks wait."""
    frames: list[tuple[FrameType, int]] = list(task.iter_await_frames())
    places = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
        for frame, line in frames
        if not frame.f_globals.get("__name__", "").startswith("trio._core")
    ]
    return "".join(f"\n{'':8}{place}" for place in places[-MOST_PLACES:])
