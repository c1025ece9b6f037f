"""What was listed, in memory and on disk: the last listings decoded, all of them in a table.

A row is read where it is asked for, like an image: that takes 15 microseconds, to another thread and back
150. What may take longer has one thread of its own: writing, a table that somebody holds, a long row, and for
a while every row when the disk was slow. A disk that fails costs memory of what was asked, no answer: it is
logged. Used from the daemon's one thread.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import trio

from tciafs.catalogue.lately import Lately, WrittenRow
from tciafs.catalogue.sums import Sum
from tciafs.catalogue.table import TABLE_ERRORS, Listing, Question, Table, said, unpack
from tciafs.errors import Unusable

__all__ = ["Remembered"]

log = logging.getLogger(__name__)

WEIGHT = {
    "collections": 1,
    "patients": 1,
    "studies": 3,
    "series": 8,
    "named": 8,
    "cart": 8,
    "values": 1,
    "released": 2,
}
"""How much a decoded record of a kind weighs, in units of some 150 bytes."""

ROWS_LOOKED_THROUGH = 200
"""Some 20 ms of another thread."""

WEIGHT_IN_MEMORY = 60_000
"""Listings are kept decoded up to this weight, some 10 MB, and the newest one whatever it weighs."""

FACTS = ("changes", "forgotten")
"""What a catalogue wants to know from the start: read when the table is opened."""

LONG_ROW_BYTES = 16 << 10
"""Some 200 series: to decode more takes a millisecond, for which readers should not have to wait."""

SLOW_READ_S = 0.01
SLOW_FOR_TIMES = 20
"""After a read that took so long the disk is left to the thread for so many times as long: who reads an image
waits no more than a twentieth of the time for a slow disk, and one hiccup makes no walk slow.
"""

WHOLE = "whole"
"""The facts that tell when all studies, or all series, of a collection were asked for at once."""

P = ParamSpec("P")
T = TypeVar("T")


class Remembered:
    """Listings by question. Close it at the end."""

    def __init__(self, folder: Path) -> None:
        """Open the table in `folder`, and make it anew where it has to be. Raises Unusable."""
        self._table = Table.opened_or_made(folder)
        self._rows = len(self._table)
        self._facts = {name: self._read_fact(name) for name in FACTS}
        self._table.close()  # this thread's connection; that of the other thread is opened there
        self._thread = _OneThread()
        self._without_waiting = Table.opened(folder, patience_s=0.0)
        self._slow_until = -math.inf
        self._memory: OrderedDict[Question, Listing[Any]] = OrderedDict()
        self._lately = Lately()
        self._weight = 0
        self._series_written = 0

    def close(self) -> None:
        """Close the table, once what is being written is written."""
        self._without_waiting.close()
        self._thread.close(self._table.close)

    @property
    def on_disk(self) -> int:
        """The number of rows on disk that are not FACTS."""
        return self._rows - sum(fact is not None for fact in self._facts.values())

    def peek(self, question: Question) -> Listing[Any] | None:
        """Return what is in memory, None if that is nothing."""
        listing = self._memory.get(question)
        if listing is not None:
            self._memory.move_to_end(question)
        return listing

    def at_hand(self, question: Question) -> Listing[Any] | None:
        """Return a listing from memory, or from disk if that takes no waiting; None: see `get`."""
        if (listing := self.peek(question)) is not None:
            return listing
        try:
            row = self._row_at_once(question)
            if row is None or len(row) > LONG_ROW_BYTES:
                return None
            listing = unpack(question, row)
        except TABLE_ERRORS:  # held by somebody, or unreadable, of which `get` tells
            return None
        self.hold(question, listing)
        return listing

    async def get(self, question: Question) -> Listing[Any] | None:
        """Return a listing from memory or disk; what cannot be read was never there."""
        if (listing := self.peek(question)) is not None:
            return listing
        read = await self._read(question)
        # The archive may have answered meanwhile; what came of it is newer.
        if (listing := self.peek(question)) is not None:
            return listing
        if read is not None:
            self.hold(question, read)
        return read

    def hold(self, question: Question, listing: Listing[Any]) -> None:
        """Keep a listing in memory."""
        self._drop(question)
        self._lately.take(question)
        self._memory[question] = listing
        self._weight += _weight(question, listing)
        while self._weight > WEIGHT_IN_MEMORY and len(self._memory) > 1:
            self._drop(next(iter(self._memory)))

    async def having(
        self, questions: Sequence[Question], wants: Callable[[Any], bool], most: int | None
    ) -> list[Question]:
        """Return those of the questions in whose listing on disk is a record that is wanted.

        No more are looked for once `most` have been found.

        Rows are looked through in the other thread, some at a time, and not kept.
        """
        chosen: list[Question] = []
        try:
            for start in range(0, len(questions), ROWS_LOOKED_THROUGH):
                some = questions[start : start + ROWS_LOOKED_THROUGH]
                chosen += await self._thread.run(self._having, some, wants)
                if most is not None and len(chosen) >= most:
                    break
        except TABLE_ERRORS as error:
            raise Unusable(f"the remembered listings cannot be read: {error}") from error
        return chosen

    def _having(self, questions: Sequence[Question], wants: Callable[[Any], bool]) -> list[Question]:
        listings = ((question, self._table.get(question)) for question in questions)
        return [question for question, found in listings if found and any(map(wants, found.records))]

    async def kept_sum(self, collection: str) -> Sum | None:
        """Return what all series of a collection come to, None if that was not added up yet."""
        try:
            return await self._thread.run(self._table.sum, collection)
        except TABLE_ERRORS as error:
            log.warning("what %s comes to is unreadable: %s", collection, error)
            return None

    async def sum_up(self, collection: str, questions: Sequence[Question]) -> Sum:
        """Return what all series of a collection come to, whose rows are under the questions; keep it."""
        seen = self._series_written
        total = await self.summed(questions, lambda _: True)
        if self._series_written == seen:
            try:
                await self._thread.run(self._table.put_sum, collection, total)
            except TABLE_ERRORS as error:
                log.warning("what %s comes to could not be kept: %s", collection, error)
        return total

    async def summed(self, questions: Sequence[Question], wants: Callable[[Any], bool]) -> Sum:
        """Return what the wanted records come to that are on disk under the questions, one a patient."""
        total = Sum()
        try:
            for start in range(0, len(questions), ROWS_LOOKED_THROUGH):
                some = questions[start : start + ROWS_LOOKED_THROUGH]
                await self._thread.run(self._add, total, some, wants)
        except TABLE_ERRORS as error:
            raise Unusable(f"the remembered listings cannot be read: {error}") from error
        return total

    def _add(self, total: Sum, questions: Sequence[Question], wants: Callable[[Any], bool]) -> None:
        for question in questions:
            if (found := self._table.get(question)) is not None:
                total.add_patient(filter(wants, found.records))

    async def write(self, question: Question, listing: Listing[Any]) -> None:
        """Keep a listing on disk."""
        try:
            self._series_written += question[0] == "series"
            self._rows = await self._thread.run(self._put, question, listing)
        except TABLE_ERRORS as error:
            log.warning("the listing of %s could not be kept: %s", said(question), error)

    def _put(self, question: Question, listing: Listing[Any]) -> int:
        """Write a row, and return how many there are now."""
        if question[0] == "series":
            self._table.drop_sum(question[1])
        self._table.put(question, listing)
        return len(self._table)

    def forget(self, question: Question) -> None:
        """Drop a listing from memory: another process has written it anew on disk."""
        self._drop(question)

    def begin_to_write(self, kind: str, collection: str) -> None:
        """Note that another process begins to write the rows of a kind and a collection."""
        self._lately.begin(kind, collection)

    def written(self, kind: str, collection: str, rows: Sequence[WrittenRow]) -> None:
        """Keep rows of it in memory, which are on disk by now."""
        self._lately.add(kind, collection, rows)

    def forget_collection(self, kind: str, collection: str) -> None:
        """Drop the listings of a kind and a collection from memory: another process has written them."""
        self._series_written += kind == "series"
        for question in [each for each in self._memory if each[:2] == (kind, collection)]:
            self._drop(question)

    async def whole_listed_at(self, kind: str, collection: str) -> float | None:
        """Return when all of a collection was asked for at once, None if never; see `write_whole`."""
        fact = await self._thread.run(self._read_fact, "/".join((WHOLE, kind, collection)))
        return None if fact is None else float(fact)

    async def write_whole(self, kind: str, collection: str, asked_at: float) -> None:
        """Note that a collection was listed at once, and its rows written: who has none has no records."""
        await self.write_fact("/".join((WHOLE, kind, collection)), repr(asked_at).encode())

    def fact(self, name: str) -> bytes | None:
        """Return one of FACTS, None if it is not known."""
        return self._facts[name]

    async def write_fact(self, name: str, fact: bytes) -> None:
        """Keep a fact on disk."""
        try:
            await self._thread.run(self._table.put_fact, name, fact)
            if name in FACTS:
                self._facts[name] = fact
            self._rows = await self._thread.run(len, self._table)
        except TABLE_ERRORS as error:
            log.warning("what is known of %s could not be kept: %s", name, error)

    def _read_fact(self, name: str) -> bytes | None:
        try:
            return self._table.fact(name)
        except TABLE_ERRORS as error:
            log.warning("what was known of %s is unreadable: %s", name, error)
            return None

    async def _read(self, question: Question) -> Listing[Any] | None:
        try:
            row = await self._row(question)
            if row is None:
                return None
            if len(row) > LONG_ROW_BYTES:
                return await self._thread.run(unpack, question, row)
            return unpack(question, row)
        except TABLE_ERRORS as error:
            log.warning("the remembered listing of %s is unreadable: %s", said(question), error)
            return None

    async def _row(self, question: Question) -> bytes | None:
        try:
            return self._row_at_once(question)
        except TABLE_ERRORS:  # slow, held by somebody, or worth a second look
            return await self._thread.run(self._table.row, question)

    def _row_at_once(self, question: Question) -> bytes | None:
        """Return a row without waiting for anybody, None where there is none. Raises TABLE_ERRORS."""
        if (just_written := self._lately.take(question)) is not None:
            return just_written
        started_at = trio.current_time()
        if started_at < self._slow_until:
            raise TimeoutError("the disk was slow a moment ago")
        row = self._without_waiting.row(question)
        if (took_s := trio.current_time() - started_at) > SLOW_READ_S:
            self._slow_until = trio.current_time() + SLOW_FOR_TIMES * took_s
        return row

    def _drop(self, question: Question) -> None:
        if (listing := self._memory.pop(question, None)) is not None:
            self._weight -= _weight(question, listing)


def _weight(question: Question, listing: Listing[Any]) -> int:
    return 1 + WEIGHT[question[0]] * len(listing.records)


class _OneThread:
    """Makes calls one after the other in a thread that stays the same, as SQLite wants it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "tciafs-listings")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a call returns; who is cancelled leaves it to end by itself."""
        token, over = trio.lowlevel.current_trio_token(), trio.Event()

        def wake(_: "Future[T]") -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(over.set)

        future = self._executor.submit(call, *args, **kwargs)
        future.add_done_callback(wake)
        await over.wait()
        return future.result()

    def close(self, last: Callable[[], None]) -> None:
        """Make a last call in the thread and end it."""
        self._executor.submit(last)
        self._executor.shutdown()
