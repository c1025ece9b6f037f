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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tciafs.catalogue.damage import is_damage, leave_mark
from tciafs.catalogue.lately import Lately, WrittenRow
from tciafs.catalogue.one_thread import OneThread
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

MOST_DAMAGED_ROWS = 200
"""Of a table with more, nobody can say who has what: each of them is a question to the archive."""

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
"""The facts that tell when all studies, or all series, of a collection were asked for at once, and that the
answer was PARTIAL if it was.
"""

PARTIAL = b"partial"

UNREADABLE_FACT = "what was known of %s is unreadable: %s"


@dataclass(slots=True)
class Chosen:
    """The questions whose listings have what was looked for, and those whose rows are damaged."""

    questions: list[Question] = field(default_factory=list)
    damaged: list[Question] = field(default_factory=list)


class Remembered:
    """Listings by question. Close it at the end.

    `is_damaged` from when the table was first found to be so; `on_damage` is told of that, once.
    """

    def __init__(self, folder: Path) -> None:
        """Open the table in `folder`, and make it anew where it has to be. Raises Unusable."""
        self._folder = folder
        self.is_damaged = False
        self.on_damage: Callable[[str], None] = log.warning
        self._thread = OneThread()
        self._table = Table.opened_or_made(folder)
        self._rows = len(self._table)
        self._facts = {name: self._read_fact(name) for name in FACTS}
        self._table.close()  # this thread's connection; that of the other thread is opened there
        self._without_waiting = Table.opened(folder, patience_s=0.0)
        self._slow_until = -math.inf
        self._memory: OrderedDict[Question, Listing[Any]] = OrderedDict()
        self._lately = Lately()
        self._weight = 0
        self._series_written = 0
        self._written_elsewhere: set[tuple[str, str]] = set()

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

    async def is_missing(self, question: Question) -> bool:
        """Return whether there certainly is no listing; False where the disk cannot tell."""
        if self.peek(question) is not None:
            return False
        try:
            # A damaged table does not find all that it has.
            return await self._row(question) is None and not self.is_damaged
        except TABLE_ERRORS as error:
            self._take_note(error)
            return False

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
    ) -> Chosen:
        """Return those of the questions in whose listing on disk is a record that is wanted.

        No more are looked for once `most` have been found. Raises Unusable where the disk cannot be read, or
        too much is damaged.

        Rows are looked through in the other thread, some at a time, and not kept.
        """
        chosen = Chosen()
        try:
            for start in range(0, len(questions), ROWS_LOOKED_THROUGH):
                some = questions[start : start + ROWS_LOOKED_THROUGH]
                damage = await self._thread.run(self._look_through, some, wants, chosen)
                if damage is not None:
                    self._take_note(damage)
                    if len(chosen.damaged) > MOST_DAMAGED_ROWS:
                        raise damage
                if most is not None and len(chosen.questions) >= most:
                    break
        except TABLE_ERRORS as error:
            raise self._unreadable(error) from error
        return chosen

    def _look_through(
        self, questions: Sequence[Question], wants: Callable[[Any], bool], chosen: Chosen
    ) -> Exception | None:
        """Choose some of the questions; return what a damaged row raised, if there was one."""
        damage: Exception | None = None
        for question in questions:
            try:
                found = self._table.get(question)
            except TABLE_ERRORS as error:
                if not is_damage(error):
                    raise
                damage = error
                chosen.damaged.append(question)
            else:
                if found is not None and any(map(wants, found.records)):
                    chosen.questions.append(question)
        return damage

    def _unreadable(self, error: Exception) -> Unusable:
        self._take_note(error)
        again = "; mounting again starts it anew" if is_damage(error) else ""
        return Unusable(f"the listings cache cannot be read: {error}{again}")

    async def kept_sum(self, collection: str) -> Sum | None:
        """Return what all series of a collection come to, None if that was not added up yet."""
        try:
            return await self._thread.run(self._table.sum, collection)
        except TABLE_ERRORS as error:
            self._regret("what %s comes to is unreadable: %s", collection, error)
            return None

    async def sum_up(self, collection: str, questions: Sequence[Question]) -> Sum:
        """Return what all series of a collection come to, whose rows are under the questions; keep it.

        A sum of some old rows and some new ones is not kept: who writes them may fail before he corrects it.
        """
        seen = self._series_written
        total = await self.summed(questions, lambda _: True)
        if self._series_written == seen and ("series", collection) not in self._written_elsewhere:
            try:
                await self._thread.run(self._table.put_sum, collection, total)
            except TABLE_ERRORS as error:
                self._regret("what %s comes to could not be kept: %s", collection, error)
        return total

    async def summed(self, questions: Sequence[Question], wants: Callable[[Any], bool]) -> Sum:
        """Return what the wanted records come to that are on disk under the questions, one a patient.

        Raises Unusable.
        """
        total = Sum()
        try:
            for start in range(0, len(questions), ROWS_LOOKED_THROUGH):
                some = questions[start : start + ROWS_LOOKED_THROUGH]
                await self._thread.run(self._add, total, some, wants)
        except TABLE_ERRORS as error:
            raise self._unreadable(error) from error
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
            self._regret("the listing of %s could not be kept: %s", said(question), error)

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
        self._written_elsewhere.add((kind, collection))
        self._series_written += kind == "series"

    def end_to_write(self, kind: str, collection: str) -> None:
        """Note that it has come to its end, or failed."""
        self._written_elsewhere.discard((kind, collection))
        self._series_written += kind == "series"

    def written(self, kind: str, collection: str, rows: Sequence[WrittenRow]) -> None:
        """Keep rows of it in memory, which are on disk by now."""
        self._lately.add(kind, collection, rows)

    def forget_collection(self, kind: str, collection: str) -> None:
        """Drop the listings of a kind and a collection from memory: another process has written them."""
        for question in [each for each in self._memory if each[:2] == (kind, collection)]:
            self._drop(question)

    async def whole(self, kind: str, collection: str) -> Listing[Any] | None:
        """Return a listing of nothing, as old and as partial as that of a whole collection.

        None: it was never listed at once; see `write_whole`.
        """
        name = "/".join((WHOLE, kind, collection))
        try:
            fact = await self._thread.run(self._table.fact, name)
        except TABLE_ERRORS as error:
            self._regret(UNREADABLE_FACT, name, error)
            return None
        if fact is None:
            return None
        asked_at, *partial = fact.split()
        return Listing((), float(asked_at), partial == [PARTIAL])

    async def write_whole(
        self, kind: str, collection: str, asked_at: float, *, is_partial: bool = False
    ) -> None:
        """Note that a collection was listed at once, and its rows written: who has none has no records.

        Where they are partial he may have some, and they may be asked for soon.
        """
        words = (repr(asked_at).encode(), *([PARTIAL] if is_partial else []))
        await self.write_fact("/".join((WHOLE, kind, collection)), b" ".join(words))

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
            self._regret("what is known of %s could not be kept: %s", name, error)

    def _read_fact(self, name: str) -> bytes | None:
        try:
            return self._table.fact(name)
        except TABLE_ERRORS as error:
            self._regret(UNREADABLE_FACT, name, error)
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
            self._regret("the remembered listing of %s is unreadable: %s", said(question), error)
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

    def _regret(self, message: str, name: str, error: Exception) -> None:
        """Log what an error of the disk costs; of damage, which costs the same for each row, once."""
        if not self._take_note(error):
            log.warning(message, name, error)

    def _take_note(self, error: Exception) -> bool:
        """Return whether an error is damage; of the first it is told, and the next start learns of it."""
        if not is_damage(error):
            return False
        if not self.is_damaged:
            self.is_damaged = True
            self._thread.begin(leave_mark, self._folder)
            self.on_damage(
                f"the listings cache is damaged ({error}): what cannot be read is asked of the archive, "
                "and mounting again starts it anew"
            )
        return True

    def _drop(self, question: Question) -> None:
        if (listing := self._memory.pop(question, None)) is not None:
            self._weight -= _weight(question, listing)


def _weight(question: Question, listing: Listing[Any]) -> int:
    return 1 + WEIGHT[question[0]] * len(listing.records)
