"""Files that are made and not fetched: licences, tables, manifests; where they are, and what is in them.

Those that a retriever leaves behind are listed, the others found by name. All are made of listings alone.
Handed the tables of what a mount shows.
"""

from typing import TYPE_CHECKING

from tciafs.filesystem.identities import Level
from tciafs.filesystem.sources import Source
from tciafs.hidden import COLLECTIONS_TABLE, MANIFEST_SUFFIX, SERIES_TABLE
from tciafs.naming import licence_text

if TYPE_CHECKING:
    from tciafs.model import Series
    from tciafs.selection.table import Tables

__all__ = ["LICENCE_NAME", "METADATA_NAME", "Texts", "collection_of_manifest"]

LICENCE_NAME = "LICENSE"
METADATA_NAME = "metadata.csv"


class Texts:
    """The files that are made; `tables` None: only licences."""

    def __init__(self, tables: "Tables | None" = None) -> None:
        self._tables = tables

    def listed_in(self, folder: Level, source: Source) -> tuple[Level, str] | None:
        """Return level and name of the file that is made and shown in a folder, None: it has none."""
        if folder is Level.COLLECTION:
            return Level.LICENCE, LICENCE_NAME
        if folder in (Level.ROOT, Level.VIEW) and source.has_metadata and self._tables is not None:
            return Level.METADATA, METADATA_NAME
        if folder is Level.VIEWS and self._tables is not None:
            return Level.COLLECTIONS_TABLE, COLLECTIONS_TABLE
        return None

    def named(self, folder: Level, source: Source, name: str) -> Level | None:
        """Return the level of the file that is made under a name in a folder; None if none may be."""
        listed = self.listed_in(folder, source)
        if listed is not None and name == listed[1]:
            return listed[0]
        if self._tables is None:
            return None
        if folder is Level.COLLECTION and name == SERIES_TABLE:
            return Level.SERIES_TABLE
        if folder in (Level.ROOT, Level.VIEWS, Level.VIEW) and collection_of_manifest(name):
            return Level.MANIFEST
        return None

    async def text(self, level: Level, source: Source, collection: str) -> bytes:
        """Return the text of a file; `collection` matters not to all. Raises what the archive raises."""
        if level is Level.LICENCE:
            return await _licence(source, collection)
        assert self._tables is not None
        match level:
            case Level.SERIES_TABLE:
                return await self._tables.series(source.listings, source.prefix, collection)
            case Level.MANIFEST:
                return await self._tables.manifest(source.listings, source.prefix, collection)
            case Level.COLLECTIONS_TABLE:
                return await self._tables.collections(source.listings)
            case _:
                return await self._tables.metadata(source.listings, source.prefix)


def collection_of_manifest(name: str) -> str:
    """Return the folder name of the collection that a manifest is of; empty: it is no manifest's name."""
    return name.removesuffix(MANIFEST_SUFFIX) if name.endswith(MANIFEST_SUFFIX) else ""


async def _licence(source: Source, collection: str) -> bytes:
    """Return the text of a collection's LICENSE.

    The licences are those of its first patient's series: asking for all series of a collection, to show a
    file that `ls -l` only measures, would cost the archive too much.
    """
    patients = (await source.listings.patients(collection)).records
    series: tuple[Series, ...] = ()
    if patients:
        first = min(patient.patient_id for patient in patients)
        series = (await source.listings.series(collection, first)).records
    return licence_text(collection, [(one.licence_name, one.licence_uri) for one in series]).encode()
