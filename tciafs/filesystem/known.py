"""The archive's tree as far as it is known: names and sizes that were listed, and what of it is on disk.

Asks the archive nothing and fetches nothing, whoever looks and whatever is missing. Names are those of the
mount. Handed listings that never ask, and what is on disk.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from tciafs.control.known_values import KnownFolder, KnownPage
from tciafs.errors import NoSuchName, Offline
from tciafs.filesystem.folders import BELOW, LONG_FOLDER, Folder, made
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

NOT_LISTED = KnownPage((), 0, None, is_listed=False)


@dataclass(frozen=True, slots=True)
class Known:
    """Shows what is known. `state` says what is with a series; see `store.Store.state`."""

    listings: "Listings"
    naming: Naming
    holdings: "Holdings"
    state: Callable[[Series], str]

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
        shown = [self._shown(folder, place, series, held) for place in places]
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
        if len(records) < LONG_FOLDER:
            return made(level, whose, records, self.naming)
        return await trio.to_thread.run_sync(made, level, whose, records, self.naming)

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
            case _:  # to look through all rows of all collections would take seconds
                return {}

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
    ) -> KnownFolder:
        record = folder.children[place]
        key = folder.key(record)
        below, here = series.get(key), held.get(key)
        is_series = isinstance(record, Series)
        return KnownFolder(
            name=folder.names[place],
            series=None if below is None else len(below),
            images=None if below is None else _total(each.image_count for each in below),
            listed_bytes=None if below is None else _total(each.size_bytes for each in below),
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


def _total(numbers: Iterable[int | None]) -> int | None:
    """Return a sum, None where the archive does not say one of the numbers."""
    known = list(numbers)
    return None if None in known else sum(number for number in known if number is not None)
