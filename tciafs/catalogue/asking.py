"""Questions on their way to the archive: each once, however many ask it, and failures remembered shortly.

A question belongs to the catalogue's nursery: an asker who goes away does not end it. Used from the daemon's
one thread; times are trio's.
"""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from tciafs.catalogue.table import Listing, Question, said
from tciafs.errors import TciafsError, Unreachable

__all__ = ["Asked", "Questions"]

log = logging.getLogger(__name__)

FAILURE_MEMORY_S = 5.0
"""A failed question is not asked again at once: a viewer that probes ten names waits once."""

FAILURES_KEPT_S = 3600.0
MOST_FAILURES = 5_000
"""Some 7 MB. An archive that is away while somebody walks through it fails more often in an hour."""


@dataclass(slots=True)
class Asked:
    """A question that is on its way, shared by all who ask it, since `begun_at` (Unix seconds).

    `over` is set when it has been answered, `moved` when a part of the answer has come, and then is another.
    `not_waited_for` are parts of the answer that somebody has waited for long enough.
    """

    over: trio.Event = field(default_factory=trio.Event)
    moved: trio.Event = field(default_factory=trio.Event)
    listing: Listing[Any] | None = None
    failure: TciafsError | None = None
    begun_at: float = field(default_factory=lambda: time.time())
    not_waited_for: set[Question] = field(default_factory=set)

    def has_moved(self) -> None:
        """Wake who waits for a part of the answer."""
        moved, self.moved = self.moved, trio.Event()
        moved.set()

    async def result(self) -> Listing[Any]:
        """Wait, and return the answer. Raises what the archive failed with."""
        await self.over.wait()
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        assert self.listing is not None
        return self.listing


class Questions:
    """All questions under way, and the failures of late."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._under_way: dict[Question, Asked] = {}
        self._failed: OrderedDict[Question, tuple[float, TciafsError]] = OrderedDict()  # by their time

    def under_way(self, question: Question) -> bool:
        """Return whether a question is being asked."""
        return question in self._under_way

    def asked(self, question: Question) -> Asked | None:
        """Return a question that is being asked, None if it is not."""
        return self._under_way.get(question)

    def has_moved(self, question: Question) -> None:
        """Wake who waits for a part of the answer to a question that is being asked."""
        self._under_way[question].has_moved()

    def ask(self, question: Question, answer: Callable[[], Awaitable[Listing[Any]]]) -> Asked:
        """Return the question as it is asked already, or from now on by `answer`.

        Raises the failure of a moment ago rather than to ask again.
        """
        if (asked := self._under_way.get(question)) is not None:
            return asked
        failed_at, failure = self._failed.get(question, (-math.inf, None))
        if failure is not None and trio.current_time() - failed_at < FAILURE_MEMORY_S:
            raise failure.bare()
        asked = self._under_way[question] = Asked()
        self._nursery.start_soon(self._run, question, asked, answer)
        return asked

    def failed_within(self, question: Question, seconds: float) -> bool:
        """Return whether a question failed less than so long ago."""
        failed_at, _failure = self._failed.get(question, (-math.inf, None))
        return trio.current_time() - failed_at < seconds

    def forget_failures(self, prefix: Question) -> None:
        """Let questions that begin so, behind their kind, be asked again whatever came of them."""
        for question in [each for each in self._failed if each[1 : 1 + len(prefix)] == prefix]:
            del self._failed[question]

    async def _run(
        self, question: Question, asked: Asked, answer: Callable[[], Awaitable[Listing[Any]]]
    ) -> None:
        try:
            asked.listing = await answer()
        except TciafsError as error:
            asked.failure = error
        except Exception as error:
            log.exception("listing %s failed in an unexpected way", said(question))
            asked.failure = TciafsError(f"listing {said(question)} failed: {error!r}")
        except BaseException:
            asked.failure = Unreachable(f"tciafs closed before {said(question)} was listed")
            raise
        finally:
            self._conclude(question, asked)

    def _conclude(self, question: Question, asked: Asked) -> None:
        """Wake all who asked, and remember a failure for a while."""
        if asked.failure is not None:
            self._failed[question] = (trio.current_time(), asked.failure.bare())
            self._failed.move_to_end(question)
        self._forget_old_failures()
        del self._under_way[question]
        asked.over.set()
        asked.has_moved()

    def _forget_old_failures(self) -> None:
        """Drop those that are too old, or too many, and look at no others: this is done for each question."""
        before = trio.current_time() - FAILURES_KEPT_S
        while self._failed:
            oldest, (failed_at, _failure) = next(iter(self._failed.items()))
            if failed_at > before and len(self._failed) <= MOST_FAILURES:
                return
            del self._failed[oldest]
