"""Timing two ways of doing the same thing, turn by turn, so that a drifting machine hurts both alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec

__all__ = ["Comparison", "seconds"]

P = ParamSpec("P")


def seconds(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start


@dataclass(slots=True)
class Comparison:
    """Rounds of ours against theirs, in seconds; the ratio is taken round by round."""

    title: str
    ours_name: str
    theirs_name: str
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

    def row(self) -> tuple[str, str, str, str]:
        """Return title, ours, theirs and ratio as text."""
        return (
            self.title,
            f"{self.ours_name}: {_spread(self.ours_s)}",
            f"{self.theirs_name}: {_spread(self.theirs_s)}",
            f"{self.ratio:.2f}",
        )


def _spread(values_s: list[float]) -> str:
    middle, least, most = statistics.median(values_s), min(values_s), max(values_s)
    return f"{middle:.3f} s ({least:.3f} to {most:.3f})"
