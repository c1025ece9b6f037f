"""Words of a user held against those that the archive knows: the nearest one for a word that it does not.

Defined here and only here: which of a user's words can be looked up, and where. Handed a catalogue.
"""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tciafs.errors import Misuse
from tciafs.selection.criteria import Criteria

if TYPE_CHECKING:
    from tciafs.catalogue.catalogue import Catalogue

__all__ = ["check_words"]

LEAST_LIKENESS = 0.5


async def check_words(catalogue: "Catalogue", criteria: Criteria) -> None:
    """Raise Misuse for a collection, modality, body part or manufacturer that the archive does not know.

    Raises what the archive raises, too.
    """
    if criteria.collections:
        answer = await catalogue.collections()
        known = [each.name for each in answer.records]
        _check("collection", criteria.collections, known, {name: name for name in known})
    for field in ("modality", "body_part", "manufacturer"):
        if wanted := criteria.words_of(field):
            values = await catalogue.answer(("values", "", field, "", ""))
            known = [each.text for each in values.records]
            _check(field.replace("_", " "), wanted, known, {text.casefold(): text for text in known})


def _check(kind: str, words: Iterable[str], known: Iterable[str], spellings: dict[str, str]) -> None:
    folded = {text.casefold(): text for text in known}
    for word in words:
        if word in spellings or word.casefold() in spellings:
            continue
        near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=LEAST_LIKENESS)
        hint = f"; did you mean {folded[near[0]]}?" if near else ""
        raise Misuse(f"the archive has no {kind} {word}{hint}")
