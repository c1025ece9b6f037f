"""Whether a server is away: found out by one who waits for it, and remembered for others for a while.

After the while one question finds out whether it is back; until that is answered the others fail as before.
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
    """The way to one archive; `name` is what messages call it.

    It is left alone for `first_pause_s`, and twice as long each time, `longest_pause_s` at most.
    """

    def __init__(
        self, name: str, *, first_pause_s: float = FIRST_PAUSE_S, longest_pause_s: float = LONGEST_PAUSE_S
    ) -> None:
        self.name = name
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._failure: TciafsError | None = None
        self._failed_at = self._away_until = -math.inf
        self._pause_s = 0.0
        self._finder: object | None = None  # whose question finds out whether it is back

    @property
    def is_away(self) -> bool:
        """Whether it is not to be asked for now, having failed a while ago."""
        return self._failure is not None and (self._finder is not None or self._is_in_pause)

    @property
    def is_trusted(self) -> bool:
        """Whether nothing speaks against it: it has not failed since it last answered."""
        return self._failure is None

    @property
    def remark(self) -> str:
        """What a user is told of it while it is away, else ""."""
        return f"{self.name} is away, and {self._when}: {self._failure}" if self.is_away else ""

    def require(self) -> None:
        """Raise, while it is away, what it failed with, saying when it is asked again."""
        if self.is_away:
            kind = next(each for each in AWAY if isinstance(self._failure, each))
            raise kind(f"{self.name} is not asked for a while ({self._when}): {self._failure}")

    @contextmanager
    def asked(self, patience_s: float | None = None) -> Iterator[None]:
        """As `used`, but raise as `require` while it is away; who comes first then finds out for all."""
        self.require()
        finder = None if self.is_trusted else object()
        self._finder = finder
        try:
            with self.used(patience_s):
                yield
        finally:
            if self._finder is finder:
                self._finder = None

    @contextmanager
    def used(self, patience_s: float | None = None) -> Iterator[None]:
        """Ask within this, `patience_s` at most; what comes of it is remembered.

        With a patience, nothing that is entered within may have a nursery that outlives it. Raises what is
        raised within, or DeadlinePassed.
        """
        begun = trio.current_time()
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
        if self._failure is not None and begun >= self._failed_at:
            log.info("%s answers again", self.name)
            self._failure, self._finder = None, None
            self._pause_s = 0.0

    def note(self, error: TciafsError) -> None:
        """Remember a failure; one that says nothing of the server is none."""
        if not isinstance(error, AWAY) or self._is_in_pause:
            return
        self._pause_s = min(max(self._first_pause_s, 2 * self._pause_s), self._longest_pause_s)
        self._failure, self._failed_at = error, trio.current_time()
        self._away_until = self._failed_at + self._pause_s
        log.warning("%s is away, and not asked for %.0f s: %s", self.name, self._pause_s, error)

    @property
    def _is_in_pause(self) -> bool:
        return self._failure is not None and trio.current_time() < self._away_until

    @property
    def _when(self) -> str:
        left_s = self._away_until - trio.current_time()
        return "being asked again just now" if left_s <= 0 else f"asked again in {math.ceil(left_s)} s"
