"""Listings remembered: one request for many askers, kept in memory and on disk, good for a while.

A question (which patients has this collection?) is answered from memory, else from the disk cache of
an earlier run, else by the archive, once however many ask. An answer is fresh for the time to live, and
longer while the archive tells of no change (`changes`); after that it is shown all the same and refreshed
behind, and kept when the archive fails. Who walks through a collection makes it be listed at once (`wholes`).
Used from the daemon's one thread. Must not know of names or inodes.
"""

import datetime as dt
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from tciafs.catalogue.answers import Answer, CatalogueConfig, Event, Lister, Replaced
from tciafs.catalogue.asking import Questions
from tciafs.catalogue.freshness import Freshness
from tciafs.catalogue.remembered import Remembered
from tciafs.catalogue.summing import sum_known
from tciafs.catalogue.sums import Sum
from tciafs.catalogue.table import Listing, Question, said
from tciafs.catalogue.wholes import Wholes, whole_of
from tciafs.errors import DeadlinePassed, Offline, TciafsError, UnreadableAnswer
from tciafs.model import Archive, Change, Collection, Partial, Patient, Series, Study

__all__ = ["Answer", "Catalogue", "CatalogueConfig", "Event", "Lister", "Replaced"]

log = logging.getLogger(__name__)

REFRESH_AGAIN_S = 60.0
"""An old listing that could not be refreshed is shown for so long before the archive is asked again."""

WISH_PATIENCE_S = 3.0
"""So long an old listing that a user wished to be asked for again waits for the new one, the first time."""

WHOLE_WAIT_S = 120.0
"""So long waits who cannot be answered without a whole collection."""

REFRESHES_BEHIND = 8
"""So many old listings are refreshed at once: a walk through old ones must not become a crowd of requests."""

REMEMBERED_EVENTS = 50
CHANGES: Question = ("changes",)


class Catalogue:
    """The listing half of an archive, remembered. Use `Catalogue.running`.

    `lister` None means that collections are never listed at once; `on_replaced` is told of changes.
    `events` are the last things worth telling, oldest first.
    """

    def __init__(
        self,
        archive: Archive,
        config: CatalogueConfig,
        remembered: Remembered,
        nursery: trio.Nursery,
        lister: Lister | None,
    ) -> None:
        self._archive = archive
        self._config = config
        self._nursery = nursery
        self._lister = lister
        self.on_replaced: Replaced = lambda question, before, after: None
        self._remembered = remembered
        facts = remembered.fact
        self._freshness = Freshness(config.ttl_s, facts("changes"), facts("forgotten"))
        self._questions = Questions(nursery)
        self._wholes: Wholes | None = None
        if lister is not None:
            self._wholes = Wholes(
                lister,
                config.folder,
                remembered,
                self._questions,
                tell=self._tell,
                replaced=lambda question, before, after: self.on_replaced(question, before, after),
            )
        self._tells_changes = True
        self._refreshes = 0
        self._requests = 0
        self.events: deque[Event] = deque(maxlen=REMEMBERED_EVENTS)

    @classmethod
    @asynccontextmanager
    async def running(
        cls, archive: Archive, config: CatalogueConfig, *, lister: Lister | None = None
    ) -> AsyncIterator["Catalogue"]:
        """Open the catalogue; at the end, end what is being asked and close it. Raises Unusable."""
        with closing(Remembered(config.folder)) as remembered:
            async with trio.open_nursery() as nursery:
                catalogue = cls(archive, config, remembered, nursery, lister)
                remembered.on_damage = catalogue._tell
                nursery.start_soon(catalogue._begin_to_watch)
                yield catalogue
                nursery.cancel_scope.cancel()

    def that_never_asks(self) -> "Catalogue":
        """Return a catalogue that knows what this one does, and raises Offline for what is not remembered."""
        config = replace(self._config, offline=True)
        return Catalogue(self._archive, config, self._remembered, self._nursery, self._lister)

    async def _begin_to_watch(self) -> None:
        """Write down since when changes are watched, or each run would trust only what it asked itself."""
        if self._remembered.fact("changes") is None:
            await self._remembered.write_fact("changes", self._freshness.changes.written())

    @property
    def requests(self) -> int:
        """How often the archive was asked."""
        return self._requests + (0 if self._wholes is None else self._wholes.requests)

    @property
    def remembered(self) -> int:
        """The number of listings on disk, about."""
        return self._remembered.on_disk

    async def collections(self) -> Answer[Collection]:
        """Return all collections. Raises what `Archive` raises, like the other questions."""
        return await self.answer(("collections",))

    async def patients(self, collection: str) -> Answer[Patient]:
        """Return the patients of a collection."""
        return await self.answer(("patients", collection))

    async def studies(self, collection: str, patient: str) -> Answer[Study]:
        """Return the studies of a patient."""
        return await self.answer(("studies", collection, patient))

    async def series(self, collection: str, patient: str) -> Answer[Series]:
        """Return the series of a patient."""
        return await self.answer(("series", collection, patient))

    async def refresh(self, collection: str | None = None, patient: str | None = None) -> None:
        """Ask again: for this listing now, for all below it when somebody looks.

        None means all collections, or all patients of one. Raises what the archive raises, and leaves all
        as it was then.
        """
        if self._config.offline:
            raise Offline("--offline is set, so the archive is not asked")
        whose = tuple(name for name in (collection, patient) if name is not None)
        wished_at = time.time()
        self._questions.forget_failures(whose)
        for kind in (("collections",), ("patients",), ("studies", "series"))[len(whose)]:
            await self._ask((kind, *whose))
        self._freshness.wish(whose, wished_at)
        await self._remembered.write_fact("forgotten", self._freshness.written_wishes())

    # -- one question -----------------------------------------------------------------------------

    async def answer(self, question: Question) -> Answer[Any]:
        """Return the answer to a question of any kind: the name of one of `Archive`'s, and what it takes.

        "released", and a day (ISO 8601), is what was released on it or later; see `Archive.changes`.
        It comes from what is remembered, else from the archive.
        """
        known = await self._remembered.get(question)
        if known is None:
            known = await self._ask_first_time(question)
        elif (answer := self._fresh_answer(question, known)) is not None:
            return answer
        elif self._freshness.is_unwanted(question, known):
            known = await self._ask_for_a_moment(question, known)
        else:
            self._refresh_behind(question)
        return Answer(known.records, self._fresh_until(question, known))

    def at_hand(self, question: Question) -> Answer[Any] | None:
        """Return what `answer` does, if it is fresh and takes no waiting; else None."""
        known = self._remembered.at_hand(question)
        return None if known is None else self._fresh_answer(question, known)

    def _fresh_answer(self, question: Question, known: Listing[Any]) -> Answer[Any] | None:
        """Return what is known as an answer, None where the archive should be asked again."""
        fresh_until = self._fresh_until(question, known)
        return None if fresh_until <= time.time() else Answer(known.records, fresh_until)

    def _fresh_until(self, question: Question, known: Listing[Any]) -> float:
        if self._config.offline:
            return time.time() + self._config.ttl_s
        return self._freshness.fresh_until(question, known)

    async def _ask_first_time(self, question: Question) -> Listing[Any]:
        if question[0] in ("studies", "series"):
            nothing = await self._remembered.whole(question[0], question[1])
            is_fresh = nothing is not None and self._fresh_until(question, nothing) > time.time()
            if nothing is not None and is_fresh and await self._remembered.is_missing(question):
                return nothing
        return await self._ask(question)

    async def _ask_for_a_moment(self, question: Question, known: Listing[Any]) -> Listing[Any]:
        """Return a new answer if it comes soon, else what is known: it may lead to bytes that are here."""
        if self._questions.under_way(question) or self._questions.failed_within(question, REFRESH_AGAIN_S):
            return known
        if self._wholes is not None and self._wholes.is_not_waited_for(question):
            return known
        with suppress(TciafsError), trio.move_on_after(WISH_PATIENCE_S) as patience:
            return await self._ask(question)
        if self._wholes is not None and patience.cancelled_caught:
            self._wholes.wait_no_more(question)
        return known

    async def _ask(self, question: Question) -> Listing[Any]:
        """Return the archive's answer, asked for together with that of all siblings where that is less."""
        if self._config.offline:
            raise Offline(f"the listing of {said(question)} is not in the cache, and --offline is set")
        if self._wholes is not None and (listing := await self._wholes.answer(question)) is not None:
            return listing
        return await self._questions.ask(question, partial(self._ask_archive, question)).result()

    async def _ask_archive(self, question: Question) -> Listing[Any]:
        self._requests += 1
        asked_at = time.time()
        kind, *whose = question
        try:
            ask = self._released if kind == "released" else getattr(self._archive, kind)
            records = await ask(*whose)
            listing = Listing(tuple(records), asked_at, isinstance(records, Partial))
        except TciafsError as error:
            # Told here and not where it is waited for: by now perhaps nobody does.
            if await self._remembered.get(question) is not None:
                self._tell(f"{error}; showing an older listing of {said(question)}")
            else:
                self.events.append(Event(time.time(), f"{said(question)} could not be listed: {error}"))
            raise
        if whose and self._wholes is not None:
            self._wholes.answered(whose[0])
        before = await self._remembered.get(question)
        if before is not None and self._freshness.doubts(question, before, listing):
            self._tell(
                f"the archive lists nothing under {said(question)}, which had {len(before.records)} records; "
                "keeping them until it says so again"
            )
            return before
        self._remembered.hold(question, listing)
        self._nursery.start_soon(self._remembered.write, question, listing)
        if before is not None and set(before.records) != set(listing.records):
            self.on_replaced(question, before.records, listing.records)
        return listing

    async def _released(self, day: str) -> Sequence[Change]:
        """Return what was released on a day or later. Raises UnreadableAnswer where nobody can tell."""
        changes = await self._archive.changes(dt.date.fromisoformat(day) - dt.timedelta(days=1))
        if changes is None:
            raise UnreadableAnswer("the archive does not tell what it has released")
        return changes

    # -- whole collections ------------------------------------------------------------------------

    async def is_listed_whole(self, collection: str) -> bool:
        """Return whether all series of a collection have been listed at once, however long ago."""
        return await self._remembered.whole("series", collection) is not None

    async def patients_with(
        self, collection: str, wants: Callable[[Series], bool], *, most: int | None = None
    ) -> Answer[Patient]:
        """Return the patients who have a series that `wants` wants, or the first ones, `most` or some more.

        That takes all series of the collection, which are listed at once if that was not done yet; who asks
        waits `WHOLE_WAIT_S` at most, while the listing goes on. Raises what `Archive` raises.
        """
        patients = await self.patients(collection)
        if self._wholes is None:
            listings = [(each, await self.series(collection, each.patient_id)) for each in patients.records]
            some = tuple(each for each, series in listings if any(map(wants, series.records)))
            return Answer(some, min([patients.fresh_until, *(series.fresh_until for _, series in listings)]))
        whole_until = await self._ensure_whole("series", collection, self._wholes)
        questions: dict[Question, Patient] = {
            ("series", collection, each.patient_id): each for each in patients.records
        }
        chosen = await self._remembered.having(list(questions), wants, most)
        having = set(chosen.questions)
        for each in chosen.damaged:
            if any(map(wants, (await self.answer(each)).records)):
                having.add(each)
        some = tuple(patient for each, patient in questions.items() if each in having)
        return Answer(some, min(patients.fresh_until, whole_until))

    async def known_sum(
        self,
        collection: str,
        patient: str = "",
        study_uid: str = "",
        wants: Callable[[Series], bool] | None = None,
    ) -> Sum | None:
        """Return what the wanted series (None: all) of a collection, a patient or a study come to.

        None: not known. Asks nothing; see `summing`.
        """
        return await sum_known(self._remembered, (collection, patient, study_uid), wants)

    async def _ensure_whole(self, kind: str, collection: str, wholes: Wholes) -> float:
        """See to it that the rows of a whole collection are there; return until when they are believed.

        Old ones are asked for again behind, and are believed for `REFRESH_AGAIN_S` more.
        """
        whole = whole_of(kind, collection)
        if (known := await self._remembered.whole(kind, collection)) is not None:
            if (fresh_until := self._whole_fresh_until(collection, known)) > time.time():
                return fresh_until
            if not self._questions.failed_within(whole, REFRESH_AGAIN_S):
                wholes.ask(kind, collection)
            return time.time() + REFRESH_AGAIN_S
        if self._config.offline:
            raise Offline(f"the listing of {said(whole)} is not in the cache, and --offline is set")
        asked = wholes.ask(kind, collection)
        with trio.move_on_after(WHOLE_WAIT_S):
            return self._whole_fresh_until(collection, await asked.result())
        raise DeadlinePassed(f"{said(whole)} did not come within {WHOLE_WAIT_S:g} s; it is still asked for")

    def _whole_fresh_until(self, collection: str, whole: Listing[Any]) -> float:
        # Its rows are not at hand; that there are some is what tells it from a listing of nothing.
        return self._fresh_until(("patients", collection), replace(whole, records=(Collection(collection),)))

    # -- behind -----------------------------------------------------------------------------------

    def _refresh_behind(self, question: Question) -> None:
        """Ask the archive again without waiting: what is on the way to local bytes never does."""
        failed_lately = self._questions.failed_within(question, REFRESH_AGAIN_S)
        busy = self._refreshes >= REFRESHES_BEHIND or self._questions.under_way(question)
        if not (self._config.offline or failed_lately or busy):
            self._refreshes += 1
            self._nursery.start_soon(self._refresh, question)

    async def _refresh(self, question: Question) -> None:
        try:
            await self._look_for_changes(question)
            known = await self._remembered.get(question)
            if known is None or self._fresh_until(question, known) <= time.time():
                with suppress(TciafsError):
                    await self._ask(question)
        finally:
            self._refreshes -= 1

    async def _look_for_changes(self, question: Question) -> None:
        """Ask what was released lately, if that may make an old listing fresh; a failure is no matter."""
        known = await self._remembered.get(question)
        if known is None or not self._freshness.could_be_vouched_for(question, known):
            return
        if self._tells_changes and not self._questions.failed_within(CHANGES, REFRESH_AGAIN_S):
            with suppress(TciafsError):
                await self._questions.ask(CHANGES, self._ask_for_changes).result()

    async def _ask_for_changes(self) -> Listing[Any]:
        asked_at = time.time()
        known = self._freshness.changes
        day = known.day_to_ask_from(asked_at)
        if day is not None:
            self._requests += 1
            changes = await self._archive.changes(day)
            if changes is None:
                self._tells_changes = False
            else:
                known.learn(changes, asked_at)
        await self._remembered.write_fact("changes", known.written())
        return Listing((), asked_at)

    def _tell(self, message: str) -> None:
        log.warning("%s", message)
        self.events.append(Event(time.time(), message))
