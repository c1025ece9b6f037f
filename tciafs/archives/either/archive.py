"""The Imaging Data Commons and NBIA as one Archive: what one lacks, or cannot give now, the other gives.

Listings are in `listings`, images in `images`; here is who answers what, and that no name or version depends
on which of the two answered. One EitherArchive serves many trio tasks at once.
"""

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from tciafs.archives.either.annotations import EitherAnnotations
from tciafs.archives.either.beyond import Beyond
from tciafs.archives.either.config import EitherConfig
from tciafs.archives.either.images import EitherImages
from tciafs.archives.either.listings import EitherListings
from tciafs.archives.idc.archive import IdcArchive
from tciafs.archives.nbia.archive import NbiaArchive
from tciafs.archives.route import Route
from tciafs.model import Change, Collection, Delivery, Patient, Series, Study, Value

__all__ = ["EitherArchive"]


class EitherArchive:
    """Both archives, which belong to this one from now on; see `model.Archive`."""

    def __init__(self, config: EitherConfig, idc: IdcArchive, nbia: NbiaArchive) -> None:
        self._config = config
        self._idc = idc
        self._nbia = nbia
        self._beyond = Beyond(Path(config.beyond))
        self._server = Route("NBIA")
        self._listings = EitherListings(idc, nbia, self._beyond, self._server)
        self._images = EitherImages(idc, nbia, self._server)

    @property
    def config(self) -> EitherConfig:
        """The configuration with what has been learnt of NBIA's API."""
        return msgspec.structs.replace(self._config, nbia=self._nbia.config)

    @property
    def remark(self) -> str:
        """What a user is told of who is away, else ""."""
        return "; ".join(filter(None, (self._idc.remark, self._server.remark)))

    async def collections(self) -> Sequence[Collection]:
        """Return the collections of both."""
        return await self._listings.collections()

    async def patients(self, collection: str) -> Sequence[Patient]:
        """Return the patients of a collection in both."""
        return await self._listings.patients(collection)

    async def studies(self, collection: str, patient: str) -> Sequence[Study]:
        """Return the studies of a patient in both."""
        return await self._listings.studies(collection, patient)

    async def series(self, collection: str, patient: str) -> Sequence[Series]:
        """Return the series of a patient in both."""
        return await self._listings.series(collection, patient)

    def every_study(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Study]]]:
        """Give all studies of a collection in both."""
        return self._listings.every_study(collection)

    def every_series(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Series]]]:
        """Give all series of a collection in both."""
        return self._listings.every_series(collection)

    async def changes(self, since: dt.date) -> Sequence[Change] | None:
        """Return who has had series released in either, with the last day; None: NBIA cannot tell."""
        with self._server.asked():
            theirs = await self._nbia.changes(since)
        if theirs is None:
            return None
        latest: dict[tuple[str, str], Change] = {}
        for each in (*theirs, *await self._idc.changes(since)):
            known = latest.setdefault((each.collection, each.patient_id), each)
            if each.released > known.released:
                latest[each.collection, each.patient_id] = each
        return tuple(latest.values())

    async def named(self, *series_uids: str) -> Sequence[Series]:
        """Return the series among these that there are; NBIA is asked for what the IDC lacks."""
        ours = self._listings.with_annotations(await self._idc.named(*series_uids))
        missing = [uid for uid in series_uids if uid not in {each.series_uid for each in ours}]
        if not missing:
            return ours
        with self._server.asked():
            return (*ours, *await self._nbia.named(*missing))

    async def cart(self, name: str) -> Sequence[Series]:
        """Return the series of a shared cart, which only NBIA has."""
        return await self._nbia.cart(name)

    async def values(self, collection: str, field: str, modality: str, body_part: str) -> Sequence[Value]:
        """Return the values of a field in both."""
        return await self._listings.values(collection, field, modality, body_part)

    def images(self, series: Series) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch the images of a series, from the IDC if it can give them."""
        return self._images.deliveries(series)

    @property
    def single_images(self) -> EitherImages:
        """How to get at the images of a series one by one."""
        return self._images

    @property
    def layouts(self) -> EitherImages:
        """How to name the images of a series in advance."""
        return self._images

    @property
    def annotations(self) -> EitherAnnotations:
        """How to have annotations with the images of a series, which come from NBIA."""
        return EitherAnnotations(self._images, self._nbia)

    @property
    def ranges(self) -> EitherImages:
        """How to get at parts of images, which the IDC alone can give."""
        return self._images

    async def aclose(self) -> None:
        """Close all connections and files of both."""
        await self._idc.aclose()
        await self._nbia.aclose()
        self._beyond.close()
