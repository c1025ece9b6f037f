"""NBIA while the table of the IDC is being made, and both as one from the moment when it is there.

Until then NBIA alone answers; where it cannot, a question waits for the table. What lists names only is
Partial meanwhile, so that it is asked again soon for what the IDC adds; and what NBIA lists is remembered for
when it is away, as what it has beyond the IDC is later. Daemon and workers each look for the file, so none
has to tell the others. Defined here and only here: what is asked of whom before the IDC joins.
"""

import datetime as dt
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
import trio

from tciafs.archives.either.archive import EitherArchive
from tciafs.archives.either.beyond import Beyond
from tciafs.archives.either.config import EitherConfig
from tciafs.archives.either.listings import keep_unsifted
from tciafs.archives.idc.archive import IdcArchive
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.archives.route import AWAY
from tciafs.errors import Unreachable, Unusable
from tciafs.model import (
    Annotations,
    Change,
    Collection,
    Delivery,
    ListedImage,
    Partial,
    Patient,
    Series,
    SingleImages,
    Study,
    Value,
)

__all__ = ["PATIENCE_S", "JoiningArchive"]

log = logging.getLogger(__name__)

PATIENCE_S = 120.0
"""How long the table is waited for, from the first question on that NBIA cannot answer."""

LOOKED_EVERY_S = 0.2
OF_NAMES = ("collections", "patients")

MOST_REMEMBERED = 5000
"""A longer listing would hold up all others while it is written."""

T = TypeVar("T")
Record = TypeVar("Record", Collection, Patient, Study, Series)
Now: TypeAlias = NbiaArchive | EitherArchive
_Ask: TypeAlias = Callable[[Now], Awaitable[Sequence[Record]]]


class JoiningArchive:
    """Both archives, of which the IDC is not there yet; see `model.Archive`. NBIA belongs to it from now on.

    `open_idc` opens the other one, and raises Unusable where it cannot.
    """

    def __init__(
        self,
        config: EitherConfig,
        nbia: NbiaArchive,
        open_idc: Callable[[IdcConfig], IdcArchive] = IdcArchive.beside_another,
    ) -> None:
        self._config = config
        self._nbia = nbia
        self._beyond = Beyond(Path(config.beyond))
        self._open_idc = open_idc
        self._either: EitherArchive | None = None
        self._is_given_up = False
        self._tried: tuple[int, int] | None = None
        self._waits_until: float | None = None

    @property
    def config(self) -> EitherConfig | NbiaConfig:
        """The configuration of both, whether the table is there or not; that of NBIA once it is given up."""
        if self._is_given_up:
            return self._nbia.config
        return msgspec.structs.replace(self._config, nbia=self._nbia.config)

    @property
    def remark(self) -> str:
        """What a user is told of who is away, else ""."""
        return "" if self._either is None else self._either.remark

    @property
    def has_joined(self) -> bool:
        """Whether both are asked."""
        return self._either is not None

    def join(self) -> None:
        """Ask both from now on. Raises Unusable where the table is not there, or cannot be read."""
        if self._either is None:
            self._either = EitherArchive(self._config, self._open_idc(self._config.idc), self._nbia)

    def give_up(self) -> None:
        """Ask NBIA alone from now on, and wait for nothing: there will be no table."""
        self._is_given_up = True

    async def collections(self) -> Sequence[Collection]:
        """Return the collections."""
        return await self._listed("collections", "", "", lambda archive: archive.collections())

    async def patients(self, collection: str) -> Sequence[Patient]:
        """Return the patients of a collection."""
        return await self._listed("patients", collection, "", lambda archive: archive.patients(collection))

    async def studies(self, collection: str, patient: str) -> Sequence[Study]:
        """Return the studies of a patient."""
        return await self._listed(
            "studies", collection, patient, lambda archive: archive.studies(collection, patient)
        )

    async def series(self, collection: str, patient: str) -> Sequence[Series]:
        """Return the series of a patient."""
        return await self._listed(
            "series", collection, patient, lambda archive: archive.series(collection, patient)
        )

    @asynccontextmanager
    async def every_study(self, collection: str) -> AsyncIterator[AsyncIterator[Sequence[Study]]]:
        """Give all studies of a collection."""
        async with self._entered(lambda archive: archive.every_study(collection)) as batches:
            yield batches

    @asynccontextmanager
    async def every_series(self, collection: str) -> AsyncIterator[AsyncIterator[Sequence[Series]]]:
        """Give all series of a collection."""
        async with self._entered(lambda archive: archive.every_series(collection)) as batches:
            yield batches

    async def changes(self, since: dt.date) -> Sequence[Change] | None:
        """Return who has had series released; None: it cannot be told."""
        return await self._asked(lambda archive: archive.changes(since))

    async def named(self, *series_uids: str) -> Sequence[Series]:
        """Return the series among these that there are."""
        return await self._asked(lambda archive: archive.named(*series_uids))

    async def cart(self, name: str) -> Sequence[Series]:
        """Return the series of a shared cart, which only NBIA has."""
        return await self._nbia.cart(name)

    async def values(self, collection: str, field: str, modality: str, body_part: str) -> Sequence[Value]:
        """Return the values of a field."""
        return await self._asked(lambda archive: archive.values(collection, field, modality, body_part))

    @asynccontextmanager
    async def images(self, series: Series) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Fetch the images of a series."""
        async with self._entered(lambda archive: archive.images(series)) as deliveries:
            yield deliveries

    @property
    def single_images(self) -> SingleImages | None:
        """How to get at the images of a series one by one."""
        return self._now().single_images

    @property
    def annotations(self) -> Annotations | None:
        """How to have annotations with the images of a series."""
        return self._now().annotations

    @property
    def layouts(self) -> "JoiningArchive":
        """How to name the images of a series in advance, which both together can."""
        return self

    def can_name(self, series: Series) -> bool:
        """Return whether the images of a series can be named: none before the IDC joins."""
        layouts = self._now().layouts
        return layouts is not None and layouts.can_name(series)

    async def layout(
        self, series: Series, received: Callable[[int], None] = lambda size_bytes: None
    ) -> Sequence[ListedImage] | None:
        """Return names and sizes of the images; None where they cannot be given now."""
        layouts = self._now().layouts
        return None if layouts is None else await layouts.layout(series, received)

    @property
    def ranges(self) -> "JoiningArchive":
        """How to get at parts of images, which both together can."""
        return self

    def gives(self, series: Series) -> bool:
        """Return whether parts of a series can be had now: none before the IDC joins."""
        ranges = self._now().ranges
        return ranges is not None and ranges.gives(series)

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        """Return a part of an image. Raises Unreachable before the IDC joins, too."""
        ranges = self._now().ranges
        if ranges is None:
            raise Unreachable("the Imaging Data Commons is not there yet")
        return await ranges.part(series, image, first, size_bytes)

    @asynccontextmanager
    async def images_behind(
        self, series: Series, held: Mapping[str, int]
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Fetch the images of a series, without what is held once the IDC has joined."""
        ranges = self._now().ranges
        way = self.images(series) if ranges is None else ranges.images_behind(series, held)
        async with way as deliveries:
            yield deliveries

    async def aclose(self) -> None:
        """Close all connections and files."""
        await (self._nbia if self._either is None else self._either).aclose()
        self._beyond.close()

    # -- before and after -------------------------------------------------------------------------

    def _now(self) -> Now:
        """Return who is asked at this moment; the IDC joins here as soon as its table is seen."""
        if self._either is None and not self._is_given_up:
            self._look()
        return self._nbia if self._either is None else self._either

    def _look(self) -> None:
        """Join if there is a table, once for each that is there: one that cannot be read is made anew."""
        try:
            found = Path(self._config.idc.table).stat()
        except OSError:
            return
        if (mark := (found.st_ino, found.st_mtime_ns)) != self._tried:
            self._tried = mark
            with suppress(Unusable):
                self.join()

    async def _asked(self, ask: Callable[[Now], Awaitable[T]]) -> T:
        """Return what NBIA answers, or both once the IDC has joined, which is waited for if NBIA cannot."""
        archive = self._now()
        try:
            return await ask(archive)
        except AWAY as error:
            if not self._waits_for_idc(archive):
                raise
            log.info("NBIA cannot be asked, so the Imaging Data Commons is waited for: %s", error)
            await self._wait_for_table()
            if self._is_given_up:
                raise
            if self._either is None:
                raise Unreachable(f"{error}; the Imaging Data Commons is still being made ready") from error
            return await ask(self._either)

    async def _wait_for_table(self) -> None:
        """Return when the IDC has joined, or will not, or patience is at an end."""
        if self._waits_until is None:
            self._waits_until = trio.current_time() + PATIENCE_S
        while trio.current_time() < self._waits_until:
            await trio.sleep(LOOKED_EVERY_S)
            if not self._waits_for_idc(self._now()):
                return

    def _waits_for_idc(self, asked: Now) -> bool:
        """Return whether who is asked is NBIA alone, and the IDC is still to come."""
        return asked is self._nbia and not self._is_given_up

    async def _listed(
        self, kind: str, collection: str, patient: str, ask: "_Ask[Record]"
    ) -> Sequence[Record]:
        """Return a listing; one of names is Partial where the IDC may add to it, and could not yet."""

        async def asked(archive: Now) -> Sequence[Record]:
            begun = time.time()
            records = await ask(archive)
            if not self._waits_for_idc(archive):
                return records
            if len(records) <= MOST_REMEMBERED:
                keep_unsifted(self._beyond, kind, collection, patient, records, begun)
            return Partial(records) if kind in OF_NAMES else records

        return await self._asked(asked)

    @asynccontextmanager
    async def _entered(self, ask: Callable[[Now], AbstractAsyncContextManager[T]]) -> AsyncIterator[T]:
        async with AsyncExitStack() as stack:
            yield await self._asked(lambda archive: stack.enter_async_context(ask(archive)))
