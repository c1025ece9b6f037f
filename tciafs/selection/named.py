"""Where the series are that manifests and carts name: UIDs -> collections, patients, and who is missing.

A list is a number of UIDs, from a file or from a cart on the server; lists given together are alternatives,
and a view has its own beside those of the mount. The archive is asked for `UIDS_AT_ONCE` at a time, and the
catalogue remembers what it answered. Handed a catalogue.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tciafs.model import Series
from tciafs.selection.manifests import Manifest

if TYPE_CHECKING:
    from tciafs.catalogue.catalogue import Catalogue

__all__ = ["FIELDS", "Found", "Lists", "find_named"]

FIELDS = ("modality", "body_part", "manufacturer")
"""What archives have lists of values of, as attributes of series."""

UIDS_AT_ONCE = 1000
"""A form of 60 kB, well below the 2 MB that Tomcat takes; the archive's own clients send up to 10,000."""

MOST_MISSING_SAID = 3


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of series, of which a series must be in one: manifests, and names of carts."""

    manifests: tuple[Manifest, ...] = ()
    carts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The series that lists name: UIDs by collection and patient, good until `fresh_until` (Unix seconds).

    `remarks` are sentences for a user: what of a list is not there, and what licences forbid. `outside`
    counts the series that are there but not wanted, `values` are what FIELDS are of those that are.
    """

    places: Mapping[str, Mapping[str, frozenset[str]]]
    remarks: tuple[str, ...]
    fresh_until: float
    outside: int = 0
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)


async def find_named(
    catalogue: "Catalogue", lists: Lists, within: Sequence[Lists], wants: Callable[[Series], bool]
) -> Found:
    """Return where those named series are that are wanted, and named in all others, too.

    Raises what the archive raises.
    """
    named, fresh_until = await _named_in(catalogue, lists)
    uids = list(dict.fromkeys(uid for each in named.values() for uid in each))
    inside = []
    for other in within:
        in_other, until = await _named_in(catalogue, other)
        fresh_until = min(fresh_until, until)
        inside.append(frozenset(uid for each in in_other.values() for uid in each))
    series: list[Series] = []
    for start in range(0, len(uids), UIDS_AT_ONCE):
        answer = await catalogue.answer(("named", *uids[start : start + UIDS_AT_ONCE]))
        fresh_until = min(fresh_until, answer.fresh_until)
        series += answer.records
    known = frozenset(each.series_uid for each in series)
    remarks = [_remark(name, each, known) for name, each in named.items()]
    chosen = [each for each in series if wants(each) and all(each.series_uid in uids for uids in inside)]
    restricted = sum(each.forbids_commercial_use for each in chosen)
    if restricted:
        remarks.append(
            f"{restricted} of {len(chosen)} series must not be used commercially (user.tcia.NonCommercial)"
        )
    odd = [
        f"manifest {each.name}: {each.odd_lines} lines name no series"
        for each in lists.manifests
        if each.odd_lines
    ]
    values = {name: frozenset(filter(None, (getattr(each, name) for each in chosen))) for name in FIELDS}
    outside = len(series) - len(chosen)
    return Found(_places(chosen), (*filter(None, remarks), *odd), fresh_until, outside, values)


async def _named_in(catalogue: "Catalogue", lists: Lists) -> tuple[dict[str, tuple[str, ...]], float]:
    """Return the UIDs in each list by what it is called, and until when that is fresh."""
    fresh_until = math.inf
    named = {f"manifest {each.name}": each.uids for each in lists.manifests}
    for name in lists.carts:
        answer = await catalogue.answer(("cart", name))
        fresh_until = min(fresh_until, answer.fresh_until)
        named[f"cart {name}"] = tuple(each.series_uid for each in answer.records)
    return named, fresh_until


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
