"""TCIA's NBIA server as an Archive: REST API v4 (the default) and v1.

Defined here and only here: its addresses, parameters, refusals and the differences between the two
versions. One NbiaArchive serves many trio tasks at once. Retries belong to `http` for listings and
to the caller for series, who knows what has arrived.
"""

import datetime as dt
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import httpx
import msgspec
import trio

from tciafs.archives.http.client import USER_AGENT, Bearer, HttpClient, Reader
from tciafs.archives.http.errors import ABSENT, RequestRejected
from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.annotations import NbiaAnnotations
from tciafs.archives.nbia.images import SeriesReader
from tciafs.archives.nbia.listings import (
    Changes,
    Records,
    collections_listing,
    every_series,
    every_study,
    named_listing,
    patients_listing,
    series_listing,
    studies_listing,
    values_listing,
)
from tciafs.archives.nbia.refusals import explained, names_unknown_parameter
from tciafs.archives.nbia.single_images import NbiaSingleImages
from tciafs.errors import AccessDenied, TciafsError, UnreadableAnswer
from tciafs.model import Change, Collection, Delivery, Patient, Series, Study, Value

__all__ = ["DEFAULT_URL", "Api", "NbiaArchive", "NbiaConfig"]

DEFAULT_URL = "https://nbia.cancerimagingarchive.net/nbia-api/services"

Api: TypeAlias = Literal["v4", "v1"]

T = TypeVar("T")
Record = TypeVar("Record", Study, Series)

_VALUES = {
    "modality": "getModalityValues",
    "body_part": "getBodyPartValues",
    "manufacturer": "getManufacturerValues",
}

log = logging.getLogger(__name__)


class NbiaConfig(msgspec.Struct, frozen=True, tag=True):
    """How to reach an NBIA server: plain values without secrets, which JSON can carry to a worker.

    `url` is the address of the services; a final slash or API version is tolerated. `api` None
    means the version in `url`, or else that the server is asked once. `retries` are the attempts
    after the first. `logged_in` says that there is a token to be had, from whoever has it.
    """

    url: str = DEFAULT_URL
    api: Api | None = None
    retries: int = 4
    limits: HttpLimits = msgspec.field(default_factory=HttpLimits)
    user_agent: str = USER_AGENT
    logged_in: bool = False


class NbiaArchive:
    """An NBIA server; see `model.Archive`.

    `bearer` gives the token of a user (None: guest). `transport` replaces the network in tests.
    """

    def __init__(
        self,
        config: NbiaConfig,
        *,
        bearer: Bearer | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent. Raises Misuse for an address that cannot work."""
        services_url, api_in_url = _split_url(config.url)
        self._config = config
        self._bearer = bearer
        self._api = config.api or api_in_url
        self._probing = trio.Lock()
        self._probe_failure: TciafsError | None = None
        self._probe_answer: tuple[Collection, ...] | None = None
        self._server_knows_include_md5 = True
        self._http = HttpClient(
            services_url,
            config.limits,
            retries=config.retries,
            user_agent=config.user_agent,
            bearer=bearer,
            transport=transport,
        )
        self._single_images = NbiaSingleImages(self._http, self._settled_api)
        self._annotations = NbiaAnnotations(self._http, self._address, self._old_address)

    remark = ""
    """What a user is told of a server that is away: nothing, since each question is tried anew."""

    @property
    def config(self) -> NbiaConfig:
        """The configuration with what has been learnt of `api`: a worker need not ask again."""
        return msgspec.structs.replace(self._config, api=self._api)

    async def collections(self) -> tuple[Collection, ...]:
        """Return the collections that this user may see (getCollectionValues).

        The API version is found by the same question: its answer serves whoever waited for that.
        """
        if self._api is None:
            api = await self._settled_api()
            answer, self._probe_answer = self._probe_answer, None
            # What v1 tells is what a guest may see.
            if answer is not None and (api == "v4" or self._bearer is None):
                return answer
        return await self._listing("getCollectionValues", {}, collections_listing)

    async def patients(self, collection: str) -> tuple[Patient, ...]:
        """Return the patients of a collection (getPatient)."""
        query = {"Collection": collection}
        return await self._listing("getPatient", query, partial(patients_listing, collection))

    async def studies(self, collection: str, patient: str) -> tuple[Study, ...]:
        """Return the studies of a patient (getPatientStudy)."""
        query = {"Collection": collection, "PatientID": patient}
        return await self._listing("getPatientStudy", query, partial(studies_listing, collection, patient))

    async def series(self, collection: str, patient: str) -> tuple[Series, ...]:
        """Return the series of a patient (getSeries)."""
        query = {"Collection": collection, "PatientID": patient}
        return await self._listing("getSeries", query, partial(series_listing, collection, patient))

    def every_study(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Study]]]:
        """Ask once for all studies of a collection (getPatientStudy), which come in batches."""
        return self._every("getPatientStudy", collection, every_study(collection))

    def every_series(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Series]]]:
        """Ask once for all series of a collection (getSeries), which come in batches."""
        return self._every("getSeries", collection, every_series(collection))

    async def changes(self, since: dt.date) -> tuple[Change, ...] | None:
        """Return who has had something released after a day (getUpdatedSeries of v4), each once.

        None for v1, which reads dates in an order that is not known, and for a server without it.
        """
        if await self._settled_api() == "v1":
            return None
        query = {"fromDate": f"{since.month:02}-{since.day:02}-{since.year:04}"}
        try:
            return await self._http.fetch("v4/getUpdatedSeries", query, partial(Changes, since))
        except RequestRejected as rejected:
            if rejected.status in ABSENT:
                return None
            raise explained(rejected) from rejected

    async def named(self, *series_uids: str) -> tuple[Series, ...]:
        """Return the series among these that there are (getSeriesMetadata of v4, in one question).

        v1 has nothing of the kind and is asked for each (getSeries).
        """
        wanted = frozenset(series_uids)
        if await self._settled_api() == "v4":
            form = {"list": ",".join(series_uids), "format": "json"}
            return await self._listing("getSeriesMetadata", {}, partial(named_listing, wanted), form)
        found: list[Series] = []
        for uid in series_uids:
            query = {"SeriesInstanceUID": uid}
            found += await self._listing("getSeries", query, partial(named_listing, wanted))
        return tuple(found)

    async def cart(self, name: str) -> tuple[Series, ...]:
        """Return the series of a shared cart (getContentsByName, which only v1 has)."""
        try:
            return await self._http.fetch(
                "v1/getContentsByName", {"name": name}, partial(named_listing, None)
            )
        except RequestRejected as rejected:
            raise explained(rejected) from rejected

    async def values(self, collection: str, field: str, modality: str, body_part: str) -> tuple[Value, ...]:
        """Return the values of a field (getModalityValues and its like)."""
        asked = {"Collection": collection, "Modality": modality, "BodyPartExamined": body_part}
        query = {name: text for name, text in asked.items() if text}
        return await self._listing(_VALUES[field], query, partial(values_listing, field))

    @asynccontextmanager
    async def images(self, series: Series) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Fetch the images of a series (getImage); what else is in the ZIP is left out.

        Asked once, without retries. Entering and iterating raise AccessDenied, Unreachable,
        DeadlinePassed, SlowDown, UnreadableAnswer or SeriesDamaged. A ZIP that is valid but short
        is not noticed here: whoever reads it must count (the server leaves out files it has lost).
        """
        async with AsyncExitStack() as stack:
            try:
                chunks = await self._open_zip(stack, series.series_uid)
            except AccessDenied as denied:
                if not series.data_uri:
                    raise
                raise AccessDenied(f"{denied} (see {series.data_uri})") from denied  # how to get access
            yield SeriesReader(chunks, series)

    @property
    def single_images(self) -> NbiaSingleImages:
        """How to get at the images of a series one by one."""
        return self._single_images

    @property
    def layouts(self) -> None:
        """Names come with the images, in the ZIP."""
        return None

    @property
    def annotations(self) -> NbiaAnnotations:
        """How to have annotations with the images of a series."""
        return self._annotations

    @property
    def ranges(self) -> None:
        """Images come whole."""
        return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _listing(
        self,
        endpoint: str,
        query: Mapping[str, str],
        reader: Callable[[], Reader[T]],
        form: Mapping[str, str] | None = None,
    ) -> T:
        try:
            return await self._http.fetch(await self._address(endpoint), query, reader, form)
        except RequestRejected as rejected:
            raise explained(rejected) from rejected

    @asynccontextmanager
    async def _every(
        self, endpoint: str, collection: str, records: Records[Record]
    ) -> AsyncIterator[AsyncIterator[Sequence[Record]]]:
        address = await self._address(endpoint)
        async with AsyncExitStack() as stack:
            rows = self._http.stream_rows(address, {"Collection": collection}, records)
            try:
                batches = await stack.enter_async_context(rows)
            except RequestRejected as rejected:
                raise explained(rejected) from rejected
            yield batches

    async def _open_zip(self, stack: AsyncExitStack, series_uid: str) -> AsyncIterator[bytes]:
        """Enter the answer of getImage into `stack`, with checksums in it if the server can."""
        api = await self._settled_api()
        asks_md5 = api == "v4" and self._server_knows_include_md5
        params = {"SeriesInstanceUID": series_uid, "NewFileNames": "Yes"}
        if asks_md5:
            params["IncludeMD5"] = "Yes"
        try:
            address = await self._address("getImage")
            return await stack.enter_async_context(self._http.stream(address, params))
        except RequestRejected as rejected:
            if not (asks_md5 and names_unknown_parameter(rejected)):
                raise explained(rejected) from rejected
        log.info("%s is too old to send checksums with images", self._http.host)
        self._server_knows_include_md5 = False
        return await self._open_zip(stack, series_uid)

    async def _address(self, endpoint: str) -> str:
        """Return where an endpoint is: v1 looks at no token, and v2, which is the same, demands one."""
        api = await self._settled_api()
        return await self._old_address(endpoint) if api == "v1" else f"{api}/{endpoint}"

    async def _old_address(self, endpoint: str) -> str:
        is_user = self._bearer is not None and await self._bearer.token() is not None
        return f"{'v2' if is_user else 'v1'}/{endpoint}"

    async def _settled_api(self) -> Api:
        """Return the API version, asking the server if need be: once for all who wait for it.

        A failure is shared by those who waited for it, and is not remembered for those who come
        later: that the network is away says nothing of the server.
        """
        if self._api is not None:
            return self._api
        failure_before = self._probe_failure
        async with self._probing:
            failure = self._probe_failure
            if self._api is None and failure is not None and failure is not failure_before:
                raise failure.bare()
            if self._api is None:
                self._api = await self._probe()
            return self._api

    async def _probe(self) -> Api:
        try:
            if await self._offers("v4"):
                return "v4"
            if await self._offers("v1"):
                log.info("%s speaks version 1 of the NBIA API", self._http.host)
                return "v1"
            raise UnreadableAnswer(f"{self._http.host} offers neither v4 nor v1 of the NBIA API")
        except TciafsError as failure:
            self._probe_failure = failure
            raise

    async def _offers(self, api: Api) -> bool:
        """Say whether the server speaks a version, and keep what it answered."""
        try:
            answer = await self._http.fetch(f"{api}/getCollectionValues", {}, collections_listing)
        except RequestRejected as rejected:
            if rejected.status in ABSENT:
                return False
            raise explained(rejected) from rejected
        self._probe_answer = answer
        return True


def _split_url(url: str) -> tuple[str, Api | None]:
    """Return the address of the services, and the API version that stood at its end."""
    url = url.strip().rstrip("/")
    for api in ("v4", "v1"):
        if url.endswith(f"/{api}"):
            return url.removesuffix(f"/{api}"), api
    return url, None
