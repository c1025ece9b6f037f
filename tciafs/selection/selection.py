"""The listings of a catalogue of which only what was chosen is left: collections, patients, studies, series.

It stands above the catalogue, so that all mounts of one server, whatever they show, remember the same
listings. A folder that would be empty does not appear: for patients that takes all series of their
collection, listed once; for collections the archive's lists of values decide, and where these cannot, a
collection appears until its series have been listed. Used from the daemon's one thread.
"""

import datetime as dt
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import trio

from tciafs.catalogue.answers import Answer, Replaced
from tciafs.catalogue.asking import Questions
from tciafs.catalogue.sums import Sum
from tciafs.catalogue.table import Listing, Question
from tciafs.errors import DeadlinePassed, Offline, TciafsError
from tciafs.model import Change, Collection, Patient, Series, Study, Value
from tciafs.selection.criteria import Criteria
from tciafs.selection.named import Found, Lists, find_named
from tciafs.selection.words import check_words

if TYPE_CHECKING:
    from tciafs.catalogue.catalogue import Catalogue

__all__ = ["Choice", "Selection"]

log = logging.getLogger(__name__)

COLLECTIONS_AT_ONCE = 4
"""So many collections are asked about at once whether they have anything that is wanted."""

CHOOSING_WAIT_S = 120.0
"""So long a reader waits until it is known what there is; the asking goes on behind."""

FAILED_AGAIN_S = 60.0
"""A collection of which it could not be learnt whether it has anything is asked about again after so long."""

LONGEST_SINCE_DAYS = 400
"""What was released is asked for as far back as this; TCIA releases some 50,000 series a year."""

COLLECTIONS: Question = ("collections",)
NAMED: Question = ("named",)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user chose: what passes the criteria and, where lists are given, is in each of these.

    What is missing of the first of these is said.
    """

    criteria: Criteria = field(default_factory=Criteria)
    lists: tuple[Lists, ...] = ()

    @property
    def has_lists(self) -> bool:
        """Whether series are named one by one."""
        return bool(self.lists)

    def __and__(self, other: "Choice") -> "Choice":
        """Return what both leave."""
        return Choice(self.criteria & other.criteria, self.lists + other.lists)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not self.has_lists and self.criteria == Criteria()


class Selection:
    """What is left of a catalogue; asked as a catalogue is. Use `Selection.running`.

    `on_replaced` is told of changes in what is left; see `catalogue.Replaced`.
    """

    def __init__(self, catalogue: "Catalogue", choice: Choice, nursery: trio.Nursery) -> None:
        self._catalogue = catalogue
        self._choice = choice
        self._criteria = choice.criteria
        self._nursery = nursery
        self._questions = Questions(nursery)
        self._known: dict[Question, Any] = {}
        self._never_asks = False
        self.on_replaced: Replaced = lambda question, before, after: None

    @classmethod
    @asynccontextmanager
    async def running(cls, catalogue: "Catalogue", choice: Choice) -> AsyncIterator["Selection"]:
        """Choose from a catalogue, and take what it tells of changes."""
        async with trio.open_nursery() as nursery:
            selection = cls(catalogue, choice, nursery)
            catalogue.on_replaced = selection.note
            yield selection
            nursery.cancel_scope.cancel()

    def that_never_asks(self) -> "Selection":
        """Return the same choice, which raises Offline where it takes more than what is known by now."""
        same = Selection(self._catalogue.that_never_asks(), self._choice, self._nursery)
        same._known, same._never_asks = self._known, True
        return same

    @property
    def choice(self) -> Choice:
        """What is chosen."""
        return self._choice

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is missing of the lists, as far as it is known: sentences for a user."""
        found = self._known.get(NAMED)
        return () if found is None else found.remarks

    async def check_words(self) -> None:
        """Raise Misuse for words that the archive does not know, or what the archive raises."""
        await check_words(self._catalogue, self._criteria)

    async def collections(self) -> Answer[Collection]:
        """Return the collections that have anything that was chosen."""
        if self._choice.has_lists:
            found = await self.found()
            return Answer(tuple(map(Collection, sorted(found.places))), found.fresh_until)
        answer: Answer[Collection] = await self._shared(COLLECTIONS, self._choose_collections)
        return answer

    async def patients(self, collection: str) -> Answer[Patient]:
        """Return the patients of a collection who have anything that was chosen."""
        if self._choice.has_lists:
            found = await self.found()
            patients = found.places.get(collection, {})
            return Answer(tuple(Patient(collection, each) for each in sorted(patients)), found.fresh_until)
        released = await self._released()
        if released is not None and not self._criteria.but_for_release.of_series:
            patients_of = [each for each in released.records if each.collection == collection]
            names = sorted(
                {each.patient_id for each in patients_of if self._criteria.wants_patient(each.patient_id)}
            )
            return Answer(tuple(Patient(collection, each) for each in names), released.fresh_until)
        if self._criteria.of_series and not self._criteria.patients:
            return await self._catalogue.patients_with(collection, self._criteria.wants)
        answer = await self._catalogue.patients(collection)
        wanted = [each for each in answer.records if self._criteria.wants_patient(each.patient_id)]
        if self._criteria.of_series:
            wanted = [each for each in wanted if (await self.series(collection, each.patient_id)).records]
        return replace(answer, records=tuple(wanted))

    def at_hand(self, question: Question) -> None:
        """Return None: to choose may take more listings than one."""
        return

    async def studies(self, collection: str, patient: str) -> Answer[Study]:
        """Return the studies of a patient that have anything that was chosen."""
        answer = await self._catalogue.studies(collection, patient)
        if not (self._choice.has_lists or self._criteria.of_series):
            return answer
        series = await self.series(collection, patient)
        wanted = {each.study_uid for each in series.records}
        return Answer(
            tuple(each for each in answer.records if each.study_uid in wanted),
            min(answer.fresh_until, series.fresh_until),
        )

    async def series(self, collection: str, patient: str) -> Answer[Series]:
        """Return the series of a patient that were chosen."""
        if self._choice.has_lists:
            await self.found()
        answer = await self._catalogue.series(collection, patient)
        return replace(answer, records=tuple(filter(self._wants, answer.records)))

    async def known_sum(
        self,
        collection: str,
        patient: str = "",
        study_uid: str = "",
        wants: Callable[[Series], bool] | None = None,
    ) -> Sum | None:
        """Return what those wanted series of a collection, a patient or a study come to that were chosen.

        None: not known. Asks nothing.
        """
        if self._choice.has_lists and self._known.get(NAMED) is None:
            return None

        def wanted(series: Series) -> bool:
            return (wants is None or wants(series)) and self._wants(series)

        return await self._catalogue.known_sum(collection, patient, study_uid, wanted)

    async def refresh(self, collection: str | None = None, patient: str | None = None) -> None:
        """Have the archive asked again, as `Catalogue.refresh` does."""
        await self._catalogue.refresh(collection, patient)
        self._known.clear()

    # -- what is chosen ---------------------------------------------------------------------------

    def _wants(self, series: Series) -> bool:
        if not self._criteria.wants(series):
            return False
        if not self._choice.has_lists:
            return True
        found: Found | None = self._known.get(NAMED)
        if found is None:
            return False
        return series.series_uid in found.places.get(series.collection, {}).get(series.patient_id, ())

    async def found(self) -> Found:
        """Return where the series are that are named one by one. Raises what the archive raises."""
        found: Found = await self._shared(NAMED, self._find_named)
        return found

    async def _find_named(self) -> Found:
        choice = self._choice
        lists, *within = choice.lists
        found = await find_named(self._catalogue, lists, within, self._criteria.wants)
        for each in found.remarks:
            log.warning("%s", each)
        return found

    async def _choose_collections(self) -> Answer[Collection]:
        """Return the collections that have anything that is wanted, or may have."""
        answer = await self._catalogue.collections()
        candidates = [each for each in answer.records if self._criteria.wants_collection(each.name)]
        fresh_until, chosen = [answer.fresh_until], set[Collection]()
        if (released := await self._released()) is not None:
            lately = {each.collection for each in released.records}
            candidates = [each for each in candidates if each.name in lately]
            fresh_until.append(released.fresh_until)

        async def choose(waiting: Iterator[Collection]) -> None:
            for each in waiting:
                has_any, until = await self._may_have(each.name)
                fresh_until.append(until)
                if has_any:
                    chosen.add(each)

        async with trio.open_nursery() as nursery:
            waiting = iter(candidates)
            for _ in range(COLLECTIONS_AT_ONCE):
                nursery.start_soon(choose, waiting)
        return Answer(tuple(each for each in candidates if each in chosen), min(fresh_until))

    async def _may_have(self, collection: str) -> tuple[bool, float]:
        """Return whether a collection may have anything that is wanted, and until when that is believed.

        One that cannot be asked about is shown: to enter it will say why.
        """
        try:
            return await self._has(collection)
        except TciafsError:
            return True, time.time() + FAILED_AGAIN_S

    async def _has(self, collection: str) -> tuple[bool, float]:
        has_any, fresh_until = await self._has_values(collection)
        some: Answer[Patient] | None = None
        if has_any and self._criteria.patients:
            some = await self.patients(collection)
        elif has_any and self._criteria.beyond_values and await self._catalogue.is_listed_whole(collection):
            some = await self._catalogue.patients_with(collection, self._criteria.wants, most=1)
        if some is None:
            return has_any, fresh_until
        return bool(some.records), min(fresh_until, some.fresh_until)

    async def _released(self) -> Answer[Change] | None:
        """Return who has had something released since the day that is wanted, None: the archive cannot tell.

        Nor is it asked of a day long ago, of which the answer would be long.
        """
        since = self._criteria.released_since
        if since is None or (dt.date.today() - since).days > LONGEST_SINCE_DAYS:
            return None
        try:
            return await self._catalogue.answer(("released", since.isoformat()))
        except TciafsError as error:
            log.info("what was released since %s could not be asked: %s", since, error)
            return None

    async def values(self, field_name: str) -> Answer[Value]:
        """Return the values that a field of what was chosen has, and may be some more."""
        if self._choice.has_lists:
            found = await self.found()
            return Answer(tuple(map(Value, sorted(found.values[field_name]))), found.fresh_until)
        criteria, texts, fresh_until = self._criteria, set[str](), math.inf
        modalities = () if field_name == "modality" else criteria.modalities
        body_parts = () if field_name == "body_part" else criteria.body_parts
        for asked in product(criteria.collections or ("",), modalities or ("",), body_parts or ("",)):
            answer = await self._catalogue.answer(("values", asked[0], field_name, *asked[1:]))
            texts |= {each.text for each in answer.records if each.text}
            fresh_until = min(fresh_until, answer.fresh_until)
        if wanted := criteria.words_of(field_name):
            folded = {word.casefold() for word in wanted}
            texts = {text for text in texts if text.casefold() in folded}
        # Of a word in several spellings, which all mean the same series, the first one.
        spellings = {text.casefold(): text for text in sorted(texts, reverse=True)}
        return Answer(tuple(map(Value, sorted(spellings.values()))), fresh_until)

    async def _has_values(self, collection: str) -> tuple[bool, float]:
        """Return whether a collection has a series of a modality, a body part and a manufacturer wanted."""
        criteria, fresh_until, has_any = self._criteria, math.inf, not self._criteria.of_values
        for field_name, words, modality, body_part in _values_to_ask(criteria):
            question = ("values", collection, field_name, modality, body_part)
            answer = await self._catalogue.answer(question)
            wanted = {word.casefold() for word in words}
            has_any = has_any or any(each.text.casefold() in wanted for each in answer.records)
            fresh_until = min(fresh_until, answer.fresh_until)
        return has_any, fresh_until

    async def _shared(self, question: Question, work: Callable[[], Awaitable[Any]]) -> Any:
        """Return what work gives, done once for all who wait for it, and again when it is not fresh."""
        known = self._known.get(question)
        if known is not None and (self._never_asks or known.fresh_until > time.time()):
            return known
        if self._never_asks:
            raise Offline("what was chosen is not known yet")

        async def answer() -> Listing[Any]:
            self._known[question] = await work()
            return Listing((self._known[question],), time.time())

        asked = self._questions.ask(question, answer)
        with trio.move_on_after(CHOOSING_WAIT_S):
            return (await asked.result()).records[0]
        raise DeadlinePassed(f"what was chosen did not become known within {CHOOSING_WAIT_S:g} s")

    # -- changes ----------------------------------------------------------------------------------

    def note(self, question: Question, before: Any, after: Any) -> None:
        """Take note of an answer that differs from the one before, and tell what of it is chosen."""
        kind, *whose = question
        if kind in ("named", "cart", "values", "released"):
            self._known.clear()
            self.on_replaced(COLLECTIONS, (), ())
        elif kind != "series":
            self._known.pop(COLLECTIONS, None)
            self.on_replaced(question, before, after)
        else:
            self._note_series(whose, *(tuple(filter(self._wants, records)) for records in (before, after)))

    def _note_series(self, whose: list[str], before: tuple[Series, ...], after: tuple[Series, ...]) -> None:
        """Tell of the series of a patient, and of all folders that may appear or disappear with them."""
        if set(before) == set(after):
            return
        self._known.pop(COLLECTIONS, None)
        self.on_replaced(("series", *whose), before, after)
        self.on_replaced(("studies", *whose), (), ())
        patient = Patient(*whose)
        self.on_replaced(
            ("patients", patient.collection), (patient,) if before else (), (patient,) if after else ()
        )


def _values_to_ask(criteria: Criteria) -> Iterator[tuple[str, tuple[str, ...], str, str]]:
    """Yield a field, the words wanted in it, and the modality and body part it is asked with.

    The last of manufacturer, body part and modality for which there are words is asked for, with each of the
    others: the answers then tell exactly whether there is a series that has all of them.
    """
    modalities, body_parts = criteria.modalities or ("",), criteria.body_parts or ("",)
    if criteria.manufacturers:
        for modality in modalities:
            for body_part in body_parts:
                yield "manufacturer", criteria.manufacturers, modality, body_part
    elif criteria.body_parts:
        for modality in modalities:
            yield "body_part", criteria.body_parts, modality, ""
    elif criteria.modalities:
        yield "modality", criteria.modalities, "", ""
