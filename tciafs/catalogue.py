"""Listings remembered: one request for many askers, kept in memory and on disk, good for a while.

A question (which patients has this collection?) is answered from memory, else from the disk cache of
an earlier run, else by the archive, once however many ask. An answer is fresh for the time to live;
after that it is shown all the same and refreshed behind, and kept when the archive fails. On disk an
answer is MessagePack bytes in a diskcache table that can hold nothing else. Used from the daemon's one
thread; the table is asked in another one. Must not know of names or inodes.
"""

import logging
import math
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import diskcache
import msgspec
import trio

from tciafs.errors import Offline, TciafsError, Unreachable, Unusable
from tciafs.model import Archive, Collection, Patient, Series, Study

__all__ = ["Answer", "Catalogue", "CatalogueConfig"]

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FAILURE_MEMORY_S = 5.0
"""A failed question is not asked again at once: a viewer that probes ten names waits once."""

REFRESH_AGAIN_S = 60.0
"""An old listing that could not be refreshed is shown for so long before the archive is asked again."""

EMPTY_TTL_S = 300.0
"""That there is nothing is believed for this long at most."""

EMPTY_CONFIRMED_S = 60.0
"""A listing that had records and comes back empty is believed when an answer this much later agrees."""

REMEMBERED_RECORDS = 200_000
"""Answers are kept in memory for about this many records: some 100 MB of the largest kind."""

DISK_TIMEOUT_S = 10.0
DISK_ERRORS = (OSError, sqlite3.Error, diskcache.Timeout, ValueError)
"""What the table raises: ValueError is `_BytesDisk`, or text that is not Unicode."""

WELL_AGAIN = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""What SQLite says of a disk that may be well again tomorrow: no reason to throw listings away."""

R = TypeVar("R", Collection, Patient, Study, Series)
Question = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CatalogueConfig:
    """`ttl_s` is how long an answer is fresh; `offline` never asks the archive."""

    folder: Path
    ttl_s: float
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """Records and until when they are fresh, in Unix seconds."""

    records: tuple[R, ...]
    fresh_until: float

    @property
    def fresh_for_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.fresh_until - time.time())


@dataclass(slots=True)
class _Asking:
    """A question on its way to the archive, shared by all who ask it."""

    answered: trio.Event
    answer: "Answer[Any] | None" = None
    failure: TciafsError | None = None


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """A diskcache disk that holds bytes under text keys and refuses everything else.

    diskcache unpickles what it finds in its folder (CVE-2025-69872); a cache is data, never code.
    """

    def get(self, key: Any, raw: bool) -> Any:
        if not raw or not isinstance(key, str):
            raise ValueError("the listings cache has a key that is not text")
        return key

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, Any, Any]:
        if read or not isinstance(value, bytes):
            raise ValueError("the listings cache holds bytes only")
        return len(value), diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode != diskcache.core.MODE_RAW or filename is not None or read:
            raise ValueError("the listings cache has a value that is not plain bytes")
        return bytes(value)


class Catalogue:
    """The listing half of an archive, remembered. Close it at the end."""

    def __init__(self, archive: Archive, config: CatalogueConfig, nursery: trio.Nursery) -> None:
        self._archive = archive
        self._config = config
        self._nursery = nursery
        self._table = _open_table(config.folder)
        self._disk = trio.CapacityLimiter(1)
        self._asking: dict[Question, _Asking] = {}
        self._memory: OrderedDict[Question, Answer[Any]] = OrderedDict()
        self._memory_records = 0
        self._failed: dict[Question, tuple[float, TciafsError]] = {}
        self._emptied_at: dict[Question, float] = {}

    def close(self) -> None:
        """Close the table."""
        self._table.close()

    async def collections(self) -> Answer[Collection]:
        """Return all collections. Raises what `Archive` raises, like the other questions."""
        return await self._ask(("collections",), Answer[Collection], self._archive.collections)

    async def patients(self, collection: str) -> Answer[Patient]:
        """Return the patients of a collection."""
        return await self._ask(
            ("patients", collection), Answer[Patient], lambda: self._archive.patients(collection)
        )

    async def studies(self, collection: str, patient: str) -> Answer[Study]:
        """Return the studies of a patient."""
        question = ("studies", collection, patient)
        return await self._ask(question, Answer[Study], lambda: self._archive.studies(collection, patient))

    async def series(self, collection: str, patient: str) -> Answer[Series]:
        """Return the series of a patient."""
        question = ("series", collection, patient)
        return await self._ask(question, Answer[Series], lambda: self._archive.series(collection, patient))

    # -- one question -----------------------------------------------------------------------------

    async def _ask(
        self, question: Question, kind: type[Answer[R]], fetch: Callable[[], Awaitable[Sequence[R]]]
    ) -> Answer[R]:
        remembered = self._memory.get(question)
        if remembered is not None:
            self._memory.move_to_end(question)
        else:
            recalled = await self._recall(question, kind)
            # Somebody else may have asked the archive meanwhile; what came of it is newer.
            remembered = self._memory.get(question) or recalled
            if remembered is not None and remembered is recalled:
                self._remember(question, recalled)
        if remembered is None:
            return await self._ask_archive(question, fetch)
        if not remembered.fresh_for_s:
            self._refresh_behind(question, fetch)
        return remembered

    def _refresh_behind(self, question: Question, fetch: Callable[[], Awaitable[Sequence[R]]]) -> None:
        """Ask the archive again without waiting: what is on the way to local bytes never does."""
        failed_at, _failure = self._failed.get(question, (-math.inf, None))
        failed_lately = trio.current_time() - failed_at < REFRESH_AGAIN_S
        if not (self._config.offline or question in self._asking or failed_lately):
            self._begin(question, fetch)

    async def _ask_archive(
        self, question: Question, fetch: Callable[[], Awaitable[Sequence[R]]]
    ) -> Answer[R]:
        failed_at, failure = self._failed.get(question, (0.0, None))
        if failure is not None and trio.current_time() - failed_at < FAILURE_MEMORY_S:
            raise failure.with_traceback(None)
        if self._config.offline:
            raise Offline(f"the listing of {'/'.join(question)} is not in the cache, and --offline is set")
        asking = self._asking.get(question) or self._begin(question, fetch)
        await asking.answered.wait()
        if asking.failure is not None:
            raise asking.failure.with_traceback(None)
        assert asking.answer is not None
        return asking.answer

    def _begin(self, question: Question, fetch: Callable[[], Awaitable[Sequence[R]]]) -> _Asking:
        asking = self._asking[question] = _Asking(trio.Event())
        # The request belongs to the catalogue: an asker who goes away does not end it.
        self._nursery.start_soon(self._run, question, asking, fetch)
        return asking

    async def _run(
        self,
        question: Question,
        asking: _Asking,
        fetch: Callable[[], Awaitable[Sequence[R]]],
    ) -> None:
        try:
            asking.answer = self._believed(question, tuple(await fetch()))
            self._remember(question, asking.answer)
        except TciafsError as error:
            asking.failure = error
            if question in self._memory:
                log.warning("%s; showing an older listing of %s", error, "/".join(question))
        except Exception as error:
            log.exception("listing %s failed in an unexpected way", "/".join(question))
            asking.failure = TciafsError(f"listing {'/'.join(question)} failed: {error!r}")
        except BaseException:
            asking.failure = Unreachable(f"tciafs closed before {'/'.join(question)} was listed")
            raise
        finally:
            self._conclude(question, asking)
        if asking.answer is not None:
            await self._write_down(question, asking.answer)

    def _believed(self, question: Question, records: tuple[R, ...]) -> Answer[R]:
        """Return what to make of the records that the archive gave.

        NBIA says nothing, with status 200, where it has nothing as well as where something of its own
        fails: a listing that had records shrinks to none only when a later answer says so again.
        """
        if records:
            self._emptied_at.pop(question, None)
            return Answer(records, time.time() + self._config.ttl_s)
        before: Answer[R] | None = self._memory.get(question)
        if before is not None and before.records:
            since = self._emptied_at.setdefault(question, trio.current_time())
            if trio.current_time() - since < EMPTY_CONFIRMED_S:
                log.warning(
                    "the archive lists nothing under %s, which had %d records; keeping them "
                    "until it says so again",
                    "/".join(question),
                    len(before.records),
                )
                return Answer(before.records, time.time() + EMPTY_CONFIRMED_S)
            del self._emptied_at[question]
        return Answer((), time.time() + min(self._config.ttl_s, EMPTY_TTL_S))

    def _conclude(self, question: Question, asking: _Asking) -> None:
        """Wake all who asked, and remember a failure for a moment."""
        now = trio.current_time()
        self._failed = {q: entry for q, entry in self._failed.items() if now - entry[0] < REFRESH_AGAIN_S}
        if asking.failure is not None:
            self._failed[question] = (now, asking.failure)
        del self._asking[question]
        asking.answered.set()

    # -- memory and disk --------------------------------------------------------------------------

    def _remember(self, question: Question, answer: Answer[Any]) -> None:
        if forgotten := self._memory.pop(question, None):
            self._memory_records -= len(forgotten.records)
        self._memory[question] = answer
        self._memory_records += len(answer.records)
        while self._memory_records > REMEMBERED_RECORDS and len(self._memory) > 1:
            _question, oldest = self._memory.popitem(last=False)
            self._memory_records -= len(oldest.records)

    async def _recall(self, question: Question, kind: type[Answer[R]]) -> Answer[R] | None:
        """Return what an earlier run wrote down; what cannot be read was never there."""
        try:
            stored = await self._in_thread(self._table.get, _key(question))
            if stored is None:
                return None
            answer = msgspec.msgpack.decode(stored, type=kind)
        except (*DISK_ERRORS, msgspec.MsgspecError) as error:
            log.warning("the remembered listing of %s is unreadable: %s", "/".join(question), error)
            return None
        # A clock that was wrong for a while, or a longer time to live, must not keep it fresh for ever.
        return Answer(answer.records, min(answer.fresh_until, time.time() + self._config.ttl_s))

    async def _write_down(self, question: Question, answer: Answer[Any]) -> None:
        try:
            encoded = msgspec.msgpack.encode(answer)
            await self._in_thread(self._table.set, _key(question), encoded)
        except DISK_ERRORS as error:
            log.warning("the listing of %s could not be kept: %s", "/".join(question), error)

    async def _in_thread(self, method: Callable[..., Any], *arguments: object) -> Any:
        """Return what a method of the table returns; what waits for the disk must not stop the daemon."""

        def call() -> Any:
            try:
                return method(*arguments)
            finally:
                self._table.close()  # its connection of this thread, which nobody else could close

        return await trio.to_thread.run_sync(call, limiter=self._disk)


def _key(question: Question) -> str:
    return "\0".join((str(SCHEMA_VERSION), *question))


def _open_table(folder: Path) -> Any:
    """Return the diskcache table in `folder`, made anew if it is damaged. Raises Unusable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _table(folder)
    except OSError as error:
        raise Unusable(f"the listings cache {folder} cannot be used: {error.strerror}") from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in WELL_AGAIN:
            raise Unusable(f"the listings cache {folder} cannot be used: {error}") from error
        log.warning("the listings cache is damaged (%s) and starts anew", error)
    except Exception as error:  # diskcache believes its file: what a damaged one makes it raise is anything
        log.warning("the listings cache is damaged (%s) and starts anew", error)
    try:
        for file in folder.glob("cache.db*"):
            file.unlink()
        return _table(folder)
    except (OSError, sqlite3.Error) as error:
        raise Unusable(f"the listings cache {folder} cannot be used: {error}") from error


def _table(folder: Path) -> Any:
    return diskcache.Cache(
        str(folder),
        timeout=DISK_TIMEOUT_S,
        disk=_BytesDisk,
        eviction_policy="none",
        cull_limit=0,
        statistics=0,
    )
