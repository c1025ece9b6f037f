"""Where the series are that manifests and carts name: UIDs -> collections, patients, and who is missing.

A list is a number of UIDs, from a file or from a cart on the server; the lists of one mount are taken
together. The archive is asked for `UIDS_AT_ONCE` at a time, and the catalogue remembers what it answered.
Handed a catalogue.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tciafs.model import Series
from tciafs.selection.manifests import Manifest

if TYPE_CHECKING:
    from tciafs.catalogue.catalogue import Catalogue

__all__ = ["Found", "find_named"]

UIDS_AT_ONCE = 1000
"""A form of 60 kB, well below the 2 MB that Tomcat takes; the archive's own clients send up to 10,000."""

MOST_MISSING_SAID = 3


@dataclass(frozen=True, slots=True)
class Found:
    """The series that lists name: UIDs by collection and patient, good until `fresh_until` (Unix seconds).

    `remarks` are sentences for a user: what of a list is not there, and what licences forbid.
    """

    places: Mapping[str, Mapping[str, frozenset[str]]]
    remarks: tuple[str, ...]
    fresh_until: float


async def find_named(
    catalogue: "Catalogue",
    manifests: Sequence[Manifest],
    carts: Sequence[str],
    wants: Callable[[Series], bool],
) -> Found:
    """Return where those named series are that are wanted. Raises what the archive raises."""
    fresh_until = math.inf
    lists = {f"manifest {each.name}": each.uids for each in manifests}
    for name in carts:
        answer = await catalogue.answer(("cart", name))
        fresh_until = min(fresh_until, answer.fresh_until)
        lists[f"cart {name}"] = tuple(each.series_uid for each in answer.records)
    uids = list(dict.fromkeys(uid for each in lists.values() for uid in each))
    series: list[Series] = []
    for start in range(0, len(uids), UIDS_AT_ONCE):
        answer = await catalogue.answer(("named", *uids[start : start + UIDS_AT_ONCE]))
        fresh_until = min(fresh_until, answer.fresh_until)
        series += answer.records
    known = frozenset(each.series_uid for each in series)
    remarks = [_remark(name, each, known) for name, each in lists.items()]
    chosen = list(filter(wants, series))
    restricted = sum(each.forbids_commercial_use for each in chosen)
    if restricted:
        remarks.append(
            f"{restricted} of {len(chosen)} series must not be used commercially (user.tcia.NonCommercial)"
        )
    odd = [
        f"manifest {each.name}: {each.odd_lines} lines name no series" for each in manifests if each.odd_lines
    ]
    return Found(_places(chosen), (*filter(None, remarks), *odd), fresh_until)


def _remark(name: str, uids: Sequence[str], known: frozenset[str]) -> str:
    """Return what is missing of a list, as a sentence; an empty one if it is all there."""
    if not uids:
        return f"{name}: the archive knows nothing under that name"
    missing = [uid for uid in uids if uid not in known]
    if not missing:
        return ""
    some = ", ".join(missing[:MOST_MISSING_SAID]) + (" ..." if len(missing) > MOST_MISSING_SAID else "")
    return f"{name}: {len(missing)} of {len(uids)} series do not exist or are not permitted: {some}"


def _places(series: Sequence[Series]) -> Mapping[str, Mapping[str, frozenset[str]]]:
    gathered: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for each in series:
        gathered[each.collection][each.patient_id].append(each.series_uid)
    return {
        collection: {patient: frozenset(uids) for patient, uids in patients.items()}
        for collection, patients in gathered.items()
    }
