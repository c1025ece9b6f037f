"""Whether a server is away: found out by one who waits for it, and remembered for others for a while.

Times are trio's. Defined here and only here: what counts as being away, and for how long.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import trio

from tciafs.errors import DeadlinePassed, SlowDown, TciafsError, Unreachable

__all__ = ["AWAY", "Route"]

log = logging.getLogger(__name__)

AWAY = (Unreachable, DeadlinePassed, SlowDown)
"""What says of a server that it is away."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 600.0


class Route:
    """The way to one archive; `name` is what messages call it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._failure: TciafsError | None = None
        self._pause_s = 0.0
        self._away_until = -math.inf

    @property
    def is_away(self) -> bool:
        """Whether it is not to be asked for now, having failed a while ago."""
        return trio.current_time() < self._away_until

    def require(self) -> None:
        """Raise Unreachable, saying why, while it is away."""
        if self.is_away:
            raise Unreachable(f"{self.name} is not asked for a while: {self._failure}")

    @contextmanager
    def used(self, patience_s: float | None = None) -> Iterator[None]:
        """Ask within this, `patience_s` at most; what comes of it is remembered.

        With a patience, nothing that is entered within may have a nursery that outlives it. Raises what is
        raised within, or DeadlinePassed.
        """
        try:
            with nullcontext() if patience_s is None else trio.fail_after(patience_s):
                yield
        except trio.TooSlowError:
            late = DeadlinePassed(f"{self.name} did not answer within {patience_s:g} s")
            self.note(late)
            raise late from None
        except TciafsError as error:
            self.note(error)
            raise
        if self._failure is not None and not self.is_away:
            log.info("%s answers again", self.name)
            self._failure, self._pause_s = None, 0.0

    def note(self, error: TciafsError) -> None:
        """Remember a failure; one that says nothing of the server is none."""
        if not isinstance(error, AWAY) or self.is_away:
            return
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._failure = error
        self._away_until = trio.current_time() + self._pause_s
        log.warning("%s is away, and not asked for %.0f s: %s", self.name, self._pause_s, error)
