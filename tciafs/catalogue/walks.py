"""Who walks through a collection, and who looks at one patient: the rule that saves requests.

Studies and series can be asked for of one patient, or of a whole collection at once. **A collection is
being walked while another of its patients is asked about before the answer about the last one is
`PACE_S` old.** A program that goes from folder to folder (find, tree, du, os.walk) does that at its second
patient; a person who reads what was listed does not. All of a collection of very many patients is a large
answer, of NLST's series more than 100 MB. So of such a one the next question has to come within
`PACE_OF_MANY_S`: then it was no person, however quick, nor a program that does something with each patient.
Defined here and only here: that rule. No clock of its own, no waiting.
"""

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["MANY_PATIENTS", "PACE_OF_MANY_S", "PACE_S", "Walks"]

PACE_S = 2.0
"""Longer than a program takes from one folder to the next, shorter than a person does."""

PACE_OF_MANY_S = 0.25
MANY_PATIENTS = 5000
"""Three of TCIA's collections have more."""

REMEMBERED_COLLECTIONS = 256


@dataclass(slots=True)
class _Visit:
    """The patient of a collection who was asked about last, and when the last answer came."""

    patient: str
    at: float
    is_walk: bool = False


class Walks:
    """The last visit to each collection. Times are seconds of any clock that never goes back."""

    def __init__(self) -> None:
        self._visits: OrderedDict[str, _Visit] = OrderedDict()

    def asks(self, collection: str, patient: str, now: float, patients: int = 0) -> bool:
        """Note that the archive has to be asked about a patient; return whether that is part of a walk.

        `patients` is how many the collection has, 0 where that is not known.
        """
        pace_s = PACE_OF_MANY_S if patients > MANY_PATIENTS else PACE_S
        visit = self._visits.pop(collection, None)
        if visit is None or now - visit.at > pace_s:
            visit = _Visit(patient, now)
        visit.is_walk = visit.is_walk or visit.patient != patient
        visit.patient, visit.at = patient, now
        self._visits[collection] = visit
        if len(self._visits) > REMEMBERED_COLLECTIONS:
            self._visits.popitem(last=False)
        return visit.is_walk

    def answered(self, collection: str, now: float) -> None:
        """Note that an answer about a patient came: a slow archive makes nobody a slow walker."""
        if (visit := self._visits.get(collection)) is not None:
            visit.at = now
