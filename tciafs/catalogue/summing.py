"""What the series below a place come to, from what is remembered: nothing is asked.

To read the rows of 26,000 patients for that takes seconds, so what a collection comes to is kept beside them
until one of them changes.
"""

from collections.abc import Callable
from contextlib import suppress

from tciafs.catalogue.remembered import Remembered
from tciafs.catalogue.sums import Sum
from tciafs.errors import Unusable
from tciafs.model import Series

__all__ = ["sum_known"]

FEW_PATIENTS = 20
"""So few may well be known one by one; a collection of a single one is never asked for at once."""


def _any(_series: Series) -> bool:
    return True


async def sum_known(
    remembered: Remembered, whose: tuple[str, str, str], wants: Callable[[Series], bool] | None
) -> Sum | None:
    """Return what the wanted series (None: all) come to of a collection, a patient or a study.

    `whose` is collection, patient ID and Study Instance UID, from the end on "" where it goes less far. None:
    not known, as that takes their listings, however old, and of a collection all of them.
    """
    with suppress(Unusable):  # a disk that cannot be read knows nothing
        return await _sum_known(remembered, whose, wants)
    return None


async def _sum_known(
    remembered: Remembered, whose: tuple[str, str, str], wants: Callable[[Series], bool] | None
) -> Sum | None:
    collection, patient, study_uid = whose
    if patient:
        return await _sum_of_patient(remembered, collection, patient, study_uid, wants or _any)
    # In this order: to read who is in a large collection takes longer, and memory of what is in use.
    if await remembered.whole("series", collection) is None:
        return await _sum_of_few_patients(remembered, collection, wants or _any)
    if wants is None and (kept := await remembered.kept_sum(collection)) is not None:
        return kept
    patients = await remembered.get(("patients", collection))
    if patients is None:
        return None
    questions = [("series", collection, each.patient_id) for each in patients.records]
    if wants is None:
        return await remembered.sum_up(collection, questions)
    return await remembered.summed(questions, wants)


async def _sum_of_few_patients(
    remembered: Remembered, collection: str, wants: Callable[[Series], bool]
) -> Sum | None:
    """Return what a collection comes to that was listed patient by patient, if it was."""
    patients = await remembered.get(("patients", collection))
    if patients is None or len(patients.records) > FEW_PATIENTS:
        return None
    total = Sum()
    for each in patients.records:
        listing = await remembered.get(("series", collection, each.patient_id))
        if listing is None:
            return None
        total.add_patient(filter(wants, listing.records))
    return total


async def _sum_of_patient(
    remembered: Remembered,
    collection: str,
    patient: str,
    study_uid: str,
    wants: Callable[[Series], bool],
) -> Sum | None:
    listing = await remembered.get(("series", collection, patient))
    if listing is None:
        return None
    meant = [each for each in listing.records if study_uid in ("", each.study_uid)]
    return Sum.of_patient(filter(wants, meant))
