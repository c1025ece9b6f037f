"""Listings of two archives as one: all that the IDC's index has, and what NBIA has beyond it.

A record that both have is the IDC's, which is on local disk, so that it is the same whether NBIA answers or
not; but that a series has annotation files, which the IDC has not, NBIA says, and that is remembered. While
NBIA does not answer, what it was seen to have beyond the IDC stands for it, and the listing is Partial.
Where the IDC has nothing NBIA alone is asked, and its failures are those of the listing. Defined here and
only here: that rule, and how long NBIA is waited for.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from tciafs.archives.either.beyond import Beyond
from tciafs.archives.idc.archive import IdcArchive
from tciafs.archives.nbia.archive import NbiaArchive
from tciafs.archives.route import Route
from tciafs.errors import TciafsError
from tciafs.model import Collection, Partial, Patient, Series, Study, Value

__all__ = ["EitherListings", "keep_unsifted"]

PATIENCE_S = 10.0
"""How long a listing that the IDC has waits for what NBIA may add."""

WHOLE_PATIENCE_S = 60.0
"""The same for the beginning of that of a whole collection."""

EXTRA = "extra "
"""Before the name of a kind: what is remembered of records that both have."""

T = TypeVar("T")
Record = TypeVar("Record", Collection, Patient, Study, Series, Value)
Large = TypeVar("Large", Study, Series)
Batches = AsyncIterator[Sequence[Large]]
Every = Callable[[str], AbstractAsyncContextManager[Batches[Large]]]


@dataclass(frozen=True, slots=True)
class _Kind(Generic[Record]):
    """Records of a kind, and which of some the IDC does not have.

    `extra` returns which of some say something of what the IDC has that is to be remembered besides.
    """

    name: str
    record: type[Record]
    others: Callable[[Sequence[Record]], Sequence[Record]]
    extra: Callable[[Sequence[Record]], Sequence[Record]] = lambda records: ()

    @property
    def extra_name(self) -> str:
        """The name under which is remembered what there is besides."""
        return EXTRA + self.name


class EitherListings:
    """The questions whose answers are made of both; see `model.Archive`.

    `server` knows whether that of NBIA is away.
    """

    def __init__(self, idc: IdcArchive, nbia: NbiaArchive, beyond: Beyond, server: Route) -> None:
        self._idc = idc
        self._nbia = nbia
        self._beyond = beyond
        self._server = server
        self._studies = _Kind("studies", Study, idc.learn_study_ids)
        self._series = _Kind("series", Series, self._series_beyond, self._annotated_of_both)

    async def collections(self) -> Sequence[Collection]:
        """Return the collections of both."""
        ours = await self._idc.collections()
        kind = _Kind("collections", Collection, _without(ours))
        return await self._both(ours, kind, "", "", self._nbia.collections)

    async def patients(self, collection: str) -> Sequence[Patient]:
        """Return the patients of a collection in both."""
        ours = await self._idc.patients(collection)
        kind = _Kind("patients", Patient, _without(ours))
        return await self._both(ours, kind, collection, "", lambda: self._nbia.patients(collection))

    async def series(self, collection: str, patient: str) -> Sequence[Series]:
        """Return the series of a patient in both."""
        ours = await self._idc.series(collection, patient)
        ask = self._nbia.series
        found = await self._both(ours, self._series, collection, patient, lambda: ask(collection, patient))
        annotated = self._beyond.of(Series, self._series.extra_name, collection, patient) if ours else ()
        return _flagged(found, {each.series_uid for each in annotated})

    def with_annotations(self, series: Sequence[Series]) -> Sequence[Series]:
        """Return series of any collections, with the annotations that NBIA was seen to have of them."""
        collections = {each.collection for each in series}
        return _flagged(series, set[str]().union(*map(self._annotated_in, collections)))

    def _annotated_in(self, collection: str) -> set[str]:
        batches = self._beyond.of_all(Series, self._series.extra_name, collection)
        return {each.series_uid for some in batches for each in some}

    async def studies(self, collection: str, patient: str) -> Sequence[Study]:
        """Return the studies of a patient in both; a StudyID is that of who says it first, for ever."""
        if not await self._idc.series(collection, patient):
            return await self._of_nbia(lambda: self._nbia.studies(collection, patient))
        ask = self._nbia.studies
        theirs = await self._added(self._studies, collection, patient, lambda: ask(collection, patient))
        return _joined(await self._idc.studies(collection, patient), theirs)

    async def values(self, collection: str, field: str, modality: str, body_part: str) -> Sequence[Value]:
        """Return the values of a field in both."""
        asked = collection, field, modality, body_part
        if collection and not self._idc.holds_collection(collection):
            return await self._of_nbia(lambda: self._nbia.values(*asked))
        ours = await self._idc.values(*asked)
        kind = _Kind("values", Value, _without(ours))
        whose = "\n".join(asked[1:])
        return _joined(ours, await self._added(kind, collection, whose, lambda: self._nbia.values(*asked)))

    @asynccontextmanager
    async def every_study(self, collection: str) -> AsyncIterator[Batches[Study]]:
        """Give all studies of a collection in both."""
        every = self._every(self._studies, collection, self._nbia.every_study, self._idc.every_study)
        async with every as batches:
            yield batches

    @asynccontextmanager
    async def every_series(self, collection: str) -> AsyncIterator[Batches[Series]]:
        """Give all series of a collection in both."""
        every = self._every(self._series, collection, self._nbia.every_series, self._idc.every_series)
        async with every as batches:
            yield batches

    def _series_beyond(self, series: Sequence[Series]) -> Sequence[Series]:
        return [each for each in series if not self._idc.holds(each.series_uid)]

    def _annotated_of_both(self, series: Sequence[Series]) -> Sequence[Series]:
        return [each for each in series if each.has_annotations and self._idc.holds(each.series_uid)]

    async def _both(
        self,
        ours: Sequence[Record],
        kind: _Kind[Record],
        collection: str,
        whose: str,
        ask: Callable[[], Awaitable[Sequence[Record]]],
    ) -> Sequence[Record]:
        if not ours:
            return await self._of_nbia(ask)
        return _joined(ours, await self._added(kind, collection, whose, ask))

    async def _of_nbia(self, ask: Callable[[], Awaitable[Sequence[Record]]]) -> Sequence[Record]:
        with self._server.asked():
            return await ask()

    async def _added(
        self,
        kind: _Kind[Record],
        collection: str,
        whose: str,
        ask: Callable[[], Awaitable[Sequence[Record]]],
    ) -> Sequence[Record]:
        """Return what NBIA adds to a listing; Partial where that is what it was seen to add before."""
        begun = time.time()
        try:
            with self._server.asked(PATIENCE_S):
                told = await ask()
        except TciafsError:
            return Partial(kind.others(self._beyond.of(kind.record, kind.name, collection, whose)))
        others = kind.others(told)
        for name, records in ((kind.name, others), (kind.extra_name, kind.extra(told))):
            _keep(self._beyond, name, collection, whose, records, begun)
            self._beyond.forget_unseen(name, collection, whose, begun)
        return others

    @asynccontextmanager
    async def _every(
        self, kind: _Kind[Large], collection: str, theirs: Every[Large], ours: Every[Large]
    ) -> AsyncIterator[Batches[Large]]:
        if self._idc.holds_collection(collection):
            async with aclosing(self._every_of_both(kind, collection, theirs, ours)) as batches:
                yield batches
            return
        self._server.require()
        try:
            async with theirs(collection) as of_nbia:
                yield of_nbia
        except TciafsError as error:
            self._server.note(error)
            raise

    async def _every_of_both(
        self, kind: _Kind[Large], collection: str, theirs: Every[Large], ours: Every[Large]
    ) -> AsyncGenerator[Sequence[Large], None]:
        begun, is_partial = time.time(), False
        try:
            async with AsyncExitStack() as stack:
                with self._server.asked(WHOLE_PATIENCE_S):
                    batches = await stack.enter_async_context(theirs(collection))
                async for batch in batches:
                    others = kind.others(batch)
                    _keep(self._beyond, kind.name, collection, "", others, begun)
                    _keep(self._beyond, kind.extra_name, collection, "", kind.extra(batch), begun)
                    if others:
                        yield others
            for name in (kind.name, kind.extra_name):
                self._beyond.forget_all_unseen(name, collection, begun)
        except TciafsError as error:
            self._server.note(error)
            is_partial = True
        if is_partial:
            for some in self._beyond.of_all(kind.record, kind.name, collection):
                if others := kind.others(some):
                    yield Partial(others)
        extra = self._beyond.of_all(kind.record, kind.extra_name, collection)
        annotated = {_key(each) for some in extra for each in some}
        async with ours(collection) as batches:
            async for batch in batches:
                records = _flagged(batch, annotated)
                yield Partial(records) if is_partial else records


def keep_unsifted(
    beyond: Beyond,
    kind: str,
    collection: str,
    whose: str,
    records: Sequence[Collection | Patient | Study | Series],
    seen: float,
) -> None:
    """Remember what NBIA lists before it is known what the IDC has; who reads it holds it against that.

    `kind` is the name of the question; `whose` "" is a listing of a whole collection, or of all.
    """
    annotated = [each for each in records if isinstance(each, Series) and each.has_annotations]
    _keep(beyond, kind, collection, whose, records, seen)
    _keep(beyond, EXTRA + kind, collection, whose, annotated, seen)


def _keep(
    beyond: Beyond,
    name: str,
    collection: str,
    whose: str,
    records: Sequence[Collection | Patient | Study | Series | Value],
    seen: float,
) -> None:
    """Remember records of a listing, or of all patients (`whose` "") each under the patient he is of."""
    beyond.keep(name, collection, [(whose or _patient_of(each), _key(each), each) for each in records], seen)


def _patient_of(record: Collection | Patient | Study | Series | Value) -> str:
    return record.patient_id if isinstance(record, Study | Series) else ""


def _key(record: Collection | Patient | Study | Series | Value) -> str:
    """Return what tells a record from its siblings."""
    match record:
        case Collection():
            return record.name
        case Patient():
            return record.patient_id
        case Study():
            return record.study_uid
        case Series():
            return record.series_uid
        case Value():
            return record.text


def _flagged(records: Sequence[Large], series_uids: Set[str]) -> Sequence[Large]:
    """Return records, of which series with these UIDs have annotations; Partial if they are."""
    if not series_uids:
        return records
    flagged = [
        msgspec.structs.replace(each, has_annotations=True)
        if isinstance(each, Series) and each.series_uid in series_uids
        else each
        for each in records
    ]
    return Partial(flagged) if isinstance(records, Partial) else flagged


def _without(ours: Sequence[Record]) -> Callable[[Sequence[Record]], Sequence[Record]]:
    """Return what leaves out records that are among ours."""
    held = frozenset(ours)
    return lambda records: [each for each in records if each not in held]


def _joined(ours: Sequence[T], theirs: Sequence[T]) -> Sequence[T]:
    """Return both; Partial if what is theirs is."""
    records = [*ours, *theirs]
    return Partial(records) if isinstance(theirs, Partial) else records
