"""Whose turn it is: so many downloads at once, and those that somebody waits for before all others.

A download that somebody waits for, and that finds no place, gets that of one that nobody waits for: of those
the one that has received least. Changes are synchronous, in one thread; only `taken` waits. Defined here and
only here: that order. Must not know what a turn is used for.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["Turn", "Turns"]


class Turn:
    """One that wants a place. `wanted`: somebody waits for it.

    `received_bytes` tells what would be lost if it gave way, None that it does not give way any more;
    `give_way` is called where it has to, and cancels the `scope` in which it works.
    """

    def __init__(
        self, *, wanted: bool, received_bytes: Callable[[], int | None], give_way: Callable[[], None]
    ) -> None:
        self.wanted = wanted
        self.gives_way = False
        self.granted = trio.Event()
        self.scope = trio.CancelScope()
        self.received_bytes = received_bytes
        self.give_way = give_way


class Turns:
    """`places` downloads at once."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: list[Turn] = []
        self._taken: list[Turn] = []

    def join(self, turn: Turn) -> None:
        """Wait for a place from now on, behind all others of the kind; `taken` has to follow."""
        self._waiting.append(turn)
        self._distribute()

    @asynccontextmanager
    async def taken(self, turn: Turn) -> AsyncIterator[None]:
        """Hold a place during the block, once there is one."""
        try:
            await turn.granted.wait()
            yield
        finally:
            (self._taken if turn.granted.is_set() else self._waiting).remove(turn)
            self._distribute()

    def want(self, turn: Turn) -> None:
        """Note that somebody waits for a turn from now on."""
        turn.wanted = True
        self._distribute()

    def _distribute(self) -> None:
        """Give free places to who is next, and have as many give way as still wait and are wanted."""
        while self._waiting and len(self._taken) < self._places:
            following = next((turn for turn in self._waiting if turn.wanted), self._waiting[0])
            self._waiting.remove(following)
            self._taken.append(following)
            following.granted.set()
        wanted = sum(turn.wanted for turn in self._waiting)
        for turn in self._least_received()[: max(0, wanted - self._places_to_come())]:
            turn.gives_way = True
            turn.give_way()

    def _places_to_come(self) -> int:
        return sum(turn.gives_way for turn in self._taken)

    def _least_received(self) -> list[Turn]:
        """Return who may give way, who loses least first."""
        losses = [
            (received, turn)
            for turn in self._taken
            if not turn.wanted and not turn.gives_way and (received := turn.received_bytes()) is not None
        ]
        return [turn for _, turn in sorted(losses, key=lambda loss: loss[0])]
