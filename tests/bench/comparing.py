"""Timing two ways of doing the same thing, turn by turn, so that a drifting machine hurts both alike.

Defined here and only here: what a line of the result says, and in which words it says a ratio.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec

__all__ = ["Comparison", "Line", "in_seconds", "ratio", "seconds"]

P = ParamSpec("P")


def seconds(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the result: what was measured, ours, what stands beside it, and how the two compare."""

    what: str
    ours: str
    beside: str = ""
    verdict: str = ""


@dataclass(slots=True)
class Comparison:
    """Rounds of ours against theirs, in seconds; the ratio is taken round by round.

    `theirs_name` names what ours is faster or slower than; `goal` is what we wish the ratio to be.
    """

    title: str
    ours_name: str
    theirs_name: str
    goal: str = ""
    ours_s: list[float] = field(default_factory=list)
    theirs_s: list[float] = field(default_factory=list)

    def add(self, ours_s: float, theirs_s: float) -> None:
        """Add a round."""
        self.ours_s.append(ours_s)
        self.theirs_s.append(theirs_s)

    @property
    def ratio(self) -> float:
        """The median of theirs / ours: above 1, ours is faster."""
        pairs = zip(self.ours_s, self.theirs_s, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    def line(self) -> Line:
        """Return the medians, with the least and the most, and the ratio."""
        return Line(
            self.title,
            f"{self.ours_name}: {in_seconds(self.ours_s)}",
            f"{self.theirs_name}: {in_seconds(self.theirs_s)}",
            ratio(self.ratio, self.theirs_name) + (f" (goal: {self.goal})" if self.goal else ""),
        )


def in_seconds(values_s: list[float]) -> str:
    """Return the median of some times, and the least and the most where there are several."""
    middle = f"{statistics.median(values_s):.3f} s"
    return f"{middle} ({min(values_s):.3f} to {max(values_s):.3f})" if len(values_s) > 1 else middle


def ratio(times_faster: float, than: str) -> str:
    """Return a ratio in words that need no heading to be understood."""
    if times_faster >= 1:
        return f"{times_faster:.2f} x faster than {than}"
    return f"{1 / times_faster:.2f} x slower than {than}"
