"""What the catalogue takes and gives: configuration, answers, events, and the protocols of its neighbours.

Below it somebody lists whole collections; above it stands a tree, or what chooses from the catalogue. Values
only.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tciafs.catalogue.lately import WrittenRow
from tciafs.catalogue.sums import Sum
from tciafs.catalogue.table import Question
from tciafs.model import Change, Collection, Patient, Series, Study, Value

__all__ = ["Answer", "CatalogueConfig", "Event", "Lister", "Listings", "Replaced"]

R = TypeVar("R", Collection, Patient, Study, Series, Value, Change)

Replaced = Callable[[Question, Sequence[Any], Sequence[Any]], None]
"""Told of an answer that differs from the one before: the question, the old records, the new ones."""


@dataclass(frozen=True, slots=True)
class CatalogueConfig:
    """`ttl_s` is how long an answer is fresh; `offline` never asks the archive."""

    folder: Path
    ttl_s: float
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """Records and until when they are fresh, in Unix seconds."""

    records: tuple[R, ...]
    fresh_until: float

    @property
    def fresh_for_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.fresh_until - time.time())


@dataclass(frozen=True, slots=True)
class Event:
    """Something of the archive that a user may want to know: a sentence, and when it was (Unix seconds)."""

    at: float
    message: str


class Lister(Protocol):
    """Lists whole collections, away from the daemon."""

    async def list_collection(
        self,
        kind: str,
        collection: str,
        folder: Path,
        asked_at: float,
        replaced: Callable[[Question, bytes, bytes], None],
        written: Callable[[Sequence[WrittenRow]], None],
    ) -> bool:
        """Ask for all "studies" or "series" of a collection and write a row a patient into the table.

        Returns whether the answer is partial, as in `model.Partial`, and so all its rows.
        Calls `replaced` with the old row and the new one where they differ, and `written` whenever there are
        more rows: with some of these, and once all that may be kept in memory were told, with none. Raises
        TciafsError; what was written by then is true.
        """
        ...


class Listings(Protocol):
    """What a tree is made of: a catalogue, or what was chosen from one. Its questions raise TciafsError.

    `on_replaced` is told of answers that differ from the one before.
    """

    on_replaced: Replaced

    async def collections(self) -> Answer[Collection]:
        """Return all collections."""
        ...

    async def patients(self, collection: str) -> Answer[Patient]:
        """Return the patients of a collection."""
        ...

    async def studies(self, collection: str, patient: str) -> Answer[Study]:
        """Return the studies of a patient."""
        ...

    async def series(self, collection: str, patient: str) -> Answer[Series]:
        """Return the series of a patient."""
        ...

    def at_hand(self, question: Question) -> Answer[Any] | None:
        """Return a fresh answer to a question, by its kind and what it takes, if that takes no waiting."""
        ...

    async def known_sum(
        self,
        collection: str,
        patient: str = "",
        study_uid: str = "",
        wants: Callable[[Series], bool] | None = None,
    ) -> Sum | None:
        """Return what the wanted series (None: all) of a collection, a patient or a study come to.

        None: not known. Asks nothing.
        """
        ...

    async def refresh(self, collection: str | None = None, patient: str | None = None) -> None:
        """Ask the archive again: for a listing now, for all below it when somebody looks."""
        ...
