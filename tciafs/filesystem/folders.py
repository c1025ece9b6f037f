"""Folders above the images: records of a listing under their names, with inode numbers that stay.

What differs between the levels of the tree is which listing to ask and how its records are called: the table
`BELOW`, not a class hierarchy. A folder is three columns in the order of the names, sorted once; the last
folders used are kept, the others are made again from their source. Used from the daemon's one thread, but a
long folder is made in another.
"""

import datetime as dt
import functools
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from tciafs.errors import TciafsError
from tciafs.filesystem.identities import Level, Numbers, Siblings, Whose
from tciafs.model import Collection, Patient, Series, Study, Value
from tciafs.naming import Naming, collection_names, legal_name, patient_names, series_names, study_names

if TYPE_CHECKING:
    from tciafs.catalogue.answers import Answer, Listings
    from tciafs.filesystem.sources import Source

__all__ = [
    "BELOW",
    "LONGEST_FOLDER_TIMEOUT_S",
    "SHORTEST_FOLDER_TIMEOUT_S",
    "Folder",
    "Folders",
    "Record",
    "made",
    "made_aside",
    "unix_day",
]

FAILURES_KEPT = 1000
"""Folders whose last failure is remembered, for who asks why."""

LONGEST_FOLDER_TIMEOUT_S = 3600.0
"""The kernel asks again for a folder at least this often, and sooner when its listing gets stale."""

SHORTEST_FOLDER_TIMEOUT_S = 1.0
"""Zero would make the kernel look up each entry again that a listing just gave it."""

LONG_FOLDER = 2000
"""To name so many records takes milliseconds, for which readers should not have to wait."""

NUMBERED_AHEAD = 2000
"""More than an answer to the kernel takes; two milliseconds."""

WEIGHT_KEPT = 120_000
"""Folders are kept up to this weight, some 20 MB, and the newest one whatever it weighs."""

Record: TypeAlias = Collection | Patient | Study | Series


@dataclass(frozen=True, slots=True)
class _Below:
    """What is below a level: whose listing to ask, how its records are called, and what tells them apart.

    `weight` is what an entry takes in memory, in units of some 170 bytes.
    """

    level: Level
    weight: int
    ask: Callable[[Any, Whose], "Awaitable[Answer[Any]]"]
    name: Callable[[Sequence[Any], Naming], Mapping[str, Any]]
    key: Callable[[Any], str]
    has_days: bool = False
    at_hand: Callable[[Any, Whose], "Answer[Any] | None"] = lambda listings, whose: None
    """The same as `ask` where that takes no waiting, else None."""


async def _ask_series(catalogue: "Listings", study: Whose) -> "Answer[Series]":
    collection, patient, study_uid = study
    return _of_study(await catalogue.series(collection, patient), study_uid)


def _series_at_hand(catalogue: "Listings", study: Whose) -> "Answer[Series] | None":
    collection, patient, study_uid = study
    answer = catalogue.at_hand(("series", collection, patient))
    return None if answer is None else _of_study(answer, study_uid)


def _of_study(answer: "Answer[Series]", study_uid: str) -> "Answer[Series]":
    return replace(answer, records=tuple(each for each in answer.records if each.study_uid == study_uid))


def _word_names(words: Iterable[Value], _naming: Naming) -> dict[str, Value]:
    named = {legal_name(word.text): word for word in words}
    return {name: named[name] for name in sorted(named)}


_TOP = _Below(
    Level.COLLECTION,
    1,
    lambda catalogue, _top: catalogue.collections(),
    lambda records, _naming: collection_names(records),
    attrgetter("name"),
)

BELOW: Mapping[Level, _Below] = {
    Level.ROOT: _TOP,
    Level.VIEW: _TOP,
    Level.VIEWS: _Below(Level.KIND, 1, lambda views, _top: views.kinds(), _word_names, attrgetter("text")),
    Level.KIND: _Below(
        Level.VIEW, 1, lambda views, kind: views.words(*kind), _word_names, attrgetter("text")
    ),
    Level.COLLECTION: _Below(
        Level.PATIENT,
        1,
        lambda catalogue, collection: catalogue.patients(*collection),
        lambda records, _naming: patient_names(records),
        attrgetter("patient_id"),
    ),
    Level.PATIENT: _Below(
        Level.STUDY,
        3,
        lambda catalogue, patient: catalogue.studies(*patient),
        study_names,
        attrgetter("study_uid"),
        has_days=True,
        at_hand=lambda catalogue, patient: catalogue.at_hand(("studies", *patient)),
    ),
    Level.STUDY: _Below(
        Level.SERIES,
        6,
        _ask_series,
        series_names,
        attrgetter("series_uid"),
        has_days=True,
        at_hand=_series_at_hand,
    ),
}
"""Levels whose folders are made of listings."""


@dataclass(slots=True)
class Folder:
    """The children of a folder, by name: `names` is sorted, all other columns are in its order.

    `encoded` are the names as bytes, `days` the dates in days since 1970 (None where there is none; None
    altogether where records of a level have none). `records` is the listing they were made of, good until
    `fresh_until`, as was found `at` (Unix seconds, both); `key` gives what tells a child from its siblings.
    """

    level: Level
    records: Sequence[Any]
    names: Sequence[str]
    encoded: Sequence[bytes]
    days: Sequence[int | None] | None
    children: Sequence[Any]
    inodes: Sequence[int]
    key: Callable[[Any], str]
    weight: int
    fresh_until: float = 0.0
    at: float = 0.0

    @property
    def timeout_s(self) -> float:
        """How long the kernel may believe it."""
        left_s = self.fresh_until - time.time()
        return min(LONGEST_FOLDER_TIMEOUT_S, max(SHORTEST_FOLDER_TIMEOUT_S, left_s))

    def number_ahead(self) -> None:
        """Make more inode numbers of a long folder, as many as its reader will soon ask for."""
        if isinstance(self.inodes, Numbers):
            self.inodes.make_more(NUMBERED_AHEAD)

    def place(self, name: str) -> int | None:
        """Return where a name stands, None if it does not."""
        place = bisect_left(self.names, name)
        return place if place < len(self.names) and self.names[place] == name else None

    def place_of(self, inode: int) -> int | None:
        """Return where an inode stands, None if it does not."""
        try:
            return self.inodes.index(inode)
        except ValueError:
            return None


def made(parent: Level, whose: Whose, records: Sequence[Any], naming: Naming, prefix: Whose = ()) -> Folder:
    """Return the folder of the records below `whose`, old from the start; `prefix` is that of its source."""
    below = BELOW[parent]
    named = below.name(records, naming)
    numbers = Siblings(below.level, prefix + whose)
    children = list(named.values())
    keys = list(map(below.key, children))
    return Folder(
        level=below.level,
        records=records,
        names=list(named),
        encoded=[name.encode() for name in named],
        days=[unix_day(record) for record in children] if below.has_days else None,
        children=children,
        inodes=numbers.inodes(keys) if len(keys) < LONG_FOLDER else Numbers(numbers, keys),
        key=below.key,
        weight=1 + below.weight * len(named),
    )


async def made_aside(
    parent: Level, whose: Whose, records: Sequence[Any], naming: Naming, prefix: Whose = ()
) -> Folder:
    """Return what `made` does, of many records from a thread, so that nobody waits for it."""
    if len(records) < LONG_FOLDER:
        return made(parent, whose, records, naming, prefix)
    return await trio.to_thread.run_sync(made, parent, whose, records, naming, prefix)


@dataclass(slots=True, eq=False)
class _Making:
    """A folder being made, of what may have changed before it is: then `is_dropped`."""

    inode: int
    is_dropped: bool = False


class Folders:
    """The folders in use, by their inode number."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._kept: OrderedDict[int, Folder] = OrderedDict()
        self._failed: OrderedDict[int, TciafsError] = OrderedDict()
        self._under_way: set[_Making] = set()
        self._weight = 0

    def peek(self, inode: int) -> Folder | None:
        """Return the folder if it is at hand, however old; never waits."""
        return self._kept.get(inode)

    async def get(self, source: "Source", inode: int, level: Level, whose: Whose) -> Folder:
        """Return a folder as fresh as its source has it. Raises what the archive raises."""
        if (folder := self._fresh(inode)) is not None:
            return folder
        with self._making(inode) as making:
            answer = await self._asked(source, inode, level, whose)
            folder = self._unchanged(inode, answer)
            if folder is None:
                folder = await made_aside(level, whose, answer.records, self._naming, source.prefix)
                if not making.is_dropped:
                    self._keep(inode, folder)
            return _renewed(folder, answer)

    def at_hand(self, source: "Source", inode: int, level: Level, whose: Whose) -> Folder | None:
        """Return what `get` does where that takes no waiting, else None."""
        if (folder := self._fresh(inode)) is not None:
            return folder
        answer = BELOW[level].at_hand(source.listings, whose)
        if answer is None or len(answer.records) >= LONG_FOLDER:
            return None
        self._failed.pop(inode, None)
        folder = self._unchanged(inode, answer)
        if folder is None:
            folder = made(level, whose, answer.records, self._naming, source.prefix)
            self._keep(inode, folder)
        return _renewed(folder, answer)

    def _unchanged(self, inode: int, answer: "Answer[Any]") -> Folder | None:
        """Return the folder that is kept, if an answer says nothing new: to name 26,000 patients takes long.

        An archive that cannot be asked leaves old answers.
        """
        folder = self._kept.get(inode)
        return None if folder is None or folder.records != answer.records else folder

    def _fresh(self, inode: int) -> Folder | None:
        folder = self._kept.get(inode)
        # Where the clock was set back meanwhile, the catalogue knows better.
        if folder is None or not folder.at <= time.time() < folder.fresh_until:
            return None
        self._kept.move_to_end(inode)
        return folder

    def failure_of(self, inode: int) -> TciafsError | None:
        """Return why a folder could not be listed the last time; None if it could, or was not asked for."""
        return self._failed.get(inode)

    async def _asked(self, source: "Source", inode: int, level: Level, whose: Whose) -> "Answer[Any]":
        self._failed.pop(inode, None)
        try:
            return await BELOW[level].ask(source.listings, whose)
        except TciafsError as failure:
            self._failed[inode] = failure.bare()
            if len(self._failed) > FAILURES_KEPT:
                self._failed.popitem(last=False)
            raise

    @contextmanager
    def _making(self, inode: int) -> Iterator[_Making]:
        making = _Making(inode)
        self._under_way.add(making)
        try:
            yield making
        finally:
            self._under_way.discard(making)

    def drop(self, inode: int) -> None:
        """Forget a folder: its listing has changed. One that is being made of it is not kept."""
        for making in self._under_way:
            making.is_dropped |= making.inode == inode
        self._remove(inode)

    def _remove(self, inode: int) -> None:
        if (folder := self._kept.pop(inode, None)) is not None:
            self._weight -= folder.weight

    def clear(self) -> None:
        """Forget all folders, those that are being made too: the catalogue is to be asked for each."""
        for making in self._under_way:
            making.is_dropped = True
        self._kept.clear()
        self._weight = 0

    def _keep(self, inode: int, folder: Folder) -> None:
        self._remove(inode)
        self._kept[inode] = folder
        self._weight += folder.weight
        while self._weight > WEIGHT_KEPT and len(self._kept) > 1:
            self._remove(next(iter(self._kept)))


def _renewed(folder: Folder, answer: "Answer[Any]") -> Folder:
    folder.fresh_until, folder.at = answer.fresh_until, time.time()
    return folder


# Times


@functools.lru_cache(maxsize=1 << 16)  # half a million series share few days, and so their numbers
def _days_since_1970(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days


def unix_day(record: Record) -> int | None:
    """Return the day of a record in days since 1970 (negative before), None if it has none."""
    match record:
        case Series():
            day = record.released or record.submitted or record.studied
        case Study():
            day = record.date
        case _:
            return None
    return None if day is None else _days_since_1970(day)
