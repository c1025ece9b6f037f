"""Collections listed at once, by another process: who is answered by that, and when he goes on.

Who walks through a collection (`walks`) makes it be listed at once, and goes on as soon as the row of his
patient is written; who loses patience, or whose collection could not be listed so, goes on patient by
patient. Used from the daemon's one thread.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tciafs.catalogue.answers import Lister, Replaced
from tciafs.catalogue.asking import Asked, Questions
from tciafs.catalogue.lately import WrittenRow
from tciafs.catalogue.remembered import Remembered
from tciafs.catalogue.table import Listing, Question, unpack
from tciafs.catalogue.walks import Walks
from tciafs.errors import TciafsError

__all__ = ["WHOLE_AGAIN_S", "WHOLE_PATIENCE_S", "Wholes", "whole_of"]

WHOLE_PATIENCE_S = 20.0
"""So long a walker waits for a collection to be listed at once; after that he goes on patient by patient."""

WHOLE_AGAIN_S = 1800.0
"""A collection that could not be listed at once (too large, too slow) is not tried again for so long."""

WHOLE_AT_ONCE = 2


class Wholes:
    """What is asked of whole collections; `requests` counts that.

    The rows that `lister` writes into `folder` are what `remembered` reads. `tell` takes what is worth
    telling, `replaced` what differs from before.
    """

    def __init__(
        self,
        lister: Lister,
        folder: Path,
        remembered: Remembered,
        questions: Questions,
        *,
        tell: Callable[[str], None],
        replaced: Replaced,
    ) -> None:
        self._lister = lister
        self._folder = folder
        self._remembered = remembered
        self._questions = questions
        self._tell = tell
        self._replaced = replaced
        self._walks = Walks()
        self._slow: set[Question] = set()
        self._turns = trio.CapacityLimiter(WHOLE_AT_ONCE)
        self.requests = 0

    def ask(self, kind: str, collection: str) -> Asked:
        """Have all "studies" or "series" of a collection listed, once however many ask."""
        return self._questions.ask(whole_of(kind, collection), partial(self._list, kind, collection))

    async def answer(self, question: Question) -> Listing[Any] | None:
        """Return the answer to a question that is part of a walk, asked together with that of all siblings.

        None: it is to be asked alone.
        """
        if question[0] in ("studies", "series") and await self._is_walk(question):
            return await self._with_siblings(question)
        return None

    def answered(self, collection: str) -> None:
        """Note that an answer about something in a collection came."""
        self._walks.answered(collection, trio.current_time())

    def wait_no_more(self, question: Question) -> None:
        """Note that who asks a question has lost patience with the listing of all siblings."""
        if (asked := self._questions.asked(whole_of(*question[:2]))) is not None:
            asked.not_waited_for.add(question)

    def is_not_waited_for(self, question: Question) -> bool:
        """Return whether that is so, of the listing that is under way."""
        asked = self._questions.asked(whole_of(*question[:2]))
        return asked is not None and question in asked.not_waited_for

    async def _is_walk(self, question: Question) -> bool:
        """Note that a question has to be asked; return whether it is part of a walk through a collection."""
        _kind, collection, patient = question
        known = await self._remembered.get(("patients", collection))
        patients = 0 if known is None else len(known.records)
        return self._walks.asks(collection, patient, trio.current_time(), patients)

    async def _with_siblings(self, question: Question) -> Listing[Any] | None:
        """Return the answer as soon as the collection has been listed up to it; None: ask for it alone."""
        kind, collection, _patient = question
        whole = whole_of(kind, collection)
        if whole in self._slow or self._questions.failed_within(whole, WHOLE_AGAIN_S):
            return None
        asked = self.ask(kind, collection)
        known: Listing[Any] | None = None
        with trio.move_on_after(WHOLE_PATIENCE_S) as patience:
            known = await self._written_since(asked, question)
        if patience.cancelled_caught:
            self._slow.add(whole)
            return None
        self.answered(collection)
        if asked.listing is None or known is not None:
            return known
        # Who is not in it has none. A patient who was there and is not any more, or whose row cannot be
        # read: let the archive say that of him alone.
        return asked.listing if await self._remembered.is_missing(question) else None

    async def _written_since(self, asked: Asked, question: Question) -> Listing[Any] | None:
        """Return a row that another process writes, once it is there; None: it has ended without."""
        while True:
            is_over, moved = asked.over.is_set(), asked.moved
            known = await self._remembered.get(question)
            if known is not None and known.asked_at >= asked.begun_at:
                return known
            if is_over:
                return None
            await moved.wait()

    async def _list(self, kind: str, collection: str) -> Listing[Any]:
        """Have a collection listed at once; return a listing of nothing, of the moment it was asked for."""
        whole = whole_of(kind, collection)
        self.requests += 1
        asked_at = time.time()

        def written(rows: Sequence[WrittenRow]) -> None:
            self._remembered.written(kind, collection, rows)
            self._questions.has_moved(whole)

        try:
            async with self._turns:
                self._remembered.begin_to_write(kind, collection)
                is_partial = await self._lister.list_collection(
                    kind, collection, self._folder, asked_at, self._take_over, written
                )
        except TciafsError as error:
            self._tell(f"{error}; {collection} is listed patient by patient")
            raise
        finally:
            self._remembered.end_to_write(kind, collection)
            self._slow.discard(whole)
        self._remembered.forget_collection(kind, collection)
        await self._remembered.write_whole(kind, collection, asked_at, is_partial=is_partial)
        return Listing((), asked_at, is_partial)

    def _take_over(self, question: Question, before: bytes, after: bytes) -> None:
        """Note that another process has written a row that differs from the one before."""
        self._remembered.forget(question)
        self._replaced(question, unpack(question, before).records, unpack(question, after).records)


def whole_of(kind: str, collection: str) -> Question:
    """Return the question for all of a kind in a collection."""
    return (f"every {kind}", collection)
