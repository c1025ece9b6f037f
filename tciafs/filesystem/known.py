"""The archive's tree as far as it is known: names and sizes that were listed, and what of it is on disk.

Asks the archive nothing and fetches nothing, whoever looks and whatever is missing. Names are those of the
mount. Handed listings that never ask, and what is on disk.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from tciafs.catalogue.sums import Sum
from tciafs.control.known_values import KnownFolder, KnownPage
from tciafs.errors import NoSuchName, Offline
from tciafs.filesystem.folders import BELOW, Folder, made_aside
from tciafs.filesystem.identities import Level, Whose
from tciafs.filesystem.status import brief
from tciafs.model import Series
from tciafs.naming import Naming

if TYPE_CHECKING:
    from tciafs.catalogue.answers import Listings
    from tciafs.store.holdings import Held, Holdings

__all__ = ["Known"]

PAGE_FOLDERS = 200
PAGE_CHARACTERS = 20_000
"""An answer must fit into the buffer of a socket, whatever names an archive has."""

ADDING_UP_S = 2.0
"""So long a page waits for the sums of collections; what was not added up then is without, until the next."""

SUM_LASTS_S = 600.0

NOT_LISTED = KnownPage((), 0, None, is_listed=False)


@dataclass(frozen=True, slots=True)
class Known:
    """Shows what is known. `state` says what is with a series; see `store.Store.state`."""

    listings: "Listings"
    naming: Naming
    holdings: "Holdings"
    state: Callable[[Series], str]
    _sums: dict[str, tuple[float, Sum]] = field(default_factory=dict)

    async def page(self, path: str, after: str) -> KnownPage:
        """Return some folders at a path, those whose name comes behind `after`. Raises NoSuchName."""
        whose: Whose = ()
        try:
            for name in [each for each in path.split("/") if each]:
                whose = (*whose, self._key(await self._folder(whose), name))
            folder = await self._folder(whose)
        except Offline:
            return NOT_LISTED
        places = _places_behind(folder, after)
        held = await self.holdings.below(whose)
        series = await self._series(whose, [folder.children[place] for place in places])
        sums = {} if whose else await self._sums_of(folder.children[place].name for place in places)
        shown = [self._shown(folder, place, series, held, sums) for place in places]
        following = folder.names[places[-1]] if places and places[-1] + 1 < len(folder.names) else None
        return KnownPage(tuple(shown), len(folder.names), following)

    def _key(self, folder: Folder, name: str) -> str:
        place = folder.place(name)
        if place is None:
            raise NoSuchName(f"{name!r} is not a folder there, as far as is known")
        return folder.key(folder.children[place])

    async def _folder(self, whose: Whose) -> Folder:
        """Return a folder above the images. Raises NoSuchName, and Offline for one that was never listed."""
        level = Level(len(whose))
        if level not in BELOW:
            raise NoSuchName("images are not listed here")
        records = (await BELOW[level].ask(self.listings, whose)).records
        return await made_aside(level, whose, records, self.naming)

    async def _series(self, whose: Whose, records: Sequence[Any]) -> Mapping[str, Sequence[Series] | None]:
        """Return the series in each of some folders by its key, None where they are not known."""
        match len(whose):
            case Level.COLLECTION:
                return {
                    each.patient_id: await self._series_of(each.collection, each.patient_id)
                    for each in records
                }
            case Level.PATIENT:
                collection, patient = whose
                every = await self._series_of(collection, patient)
                return {each.study_uid: _of_study(every, each.study_uid) for each in records}
            case Level.STUDY:
                return {each.series_uid: (each,) for each in records}
            case _:
                return {}

    async def _sums_of(self, collections: Iterable[str]) -> Mapping[str, Sum]:
        """Return what collections come to, as far as that is known and is added up soon."""
        now = trio.current_time()
        with trio.move_on_after(ADDING_UP_S):
            for name in collections:
                at, _ = self._sums.get(name, (-SUM_LASTS_S, None))
                if now - at >= SUM_LASTS_S:
                    await self._add_up(name, now)
        return {name: total for name, (_, total) in self._sums.items()}

    async def _add_up(self, collection: str, now: float) -> None:
        with suppress(Offline):
            if (total := await self.listings.known_sum(collection)) is not None:
                self._sums[collection] = now, total

    async def _series_of(self, collection: str, patient: str) -> Sequence[Series] | None:
        await trio.lowlevel.checkpoint()  # from memory there is none, and a page is long
        try:
            return (await self.listings.series(collection, patient)).records
        except Offline:
            return None

    def _shown(
        self,
        folder: Folder,
        place: int,
        series: Mapping[str, Sequence[Series] | None],
        held: "Mapping[str, Held]",
        sums: Mapping[str, Sum],
    ) -> KnownFolder:
        record = folder.children[place]
        key = folder.key(record)
        below, here = series.get(key), held.get(key)
        is_series = isinstance(record, Series)
        total = Sum.of_patient(below) if below is not None else sums.get(key)
        return KnownFolder(
            name=folder.names[place],
            series=None if total is None else total.series,
            images=None if total is None else total.images,
            listed_bytes=None if total is None else total.size_bytes,
            cached_series=0 if here is None else here.series,
            cached_bytes=0 if here is None else here.pack_bytes,
            state=self.state(record) if is_series else "",
            series_uid=record.series_uid if is_series else "",
            modality=brief(record.modality) if is_series and record.modality is not None else None,
        )


def _places_behind(folder: Folder, after: str) -> Sequence[int]:
    places: list[int] = []
    characters = 0
    for place, name in enumerate(folder.names):
        if name > after or not after:
            places.append(place)
            characters += len(name)
            if len(places) == PAGE_FOLDERS or characters > PAGE_CHARACTERS:
                break
    return places


def _of_study(series: Sequence[Series] | None, study_uid: str) -> Sequence[Series] | None:
    return None if series is None else [each for each in series if each.study_uid == study_uid]
