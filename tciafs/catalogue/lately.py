"""Rows of the table that another process has just written: kept as they are, for who walks behind it.

Who walks through a collection reads each row once, soon after it was written; to find it on disk, while more
is being written there, takes as long as all else that a folder takes. A row is given away once. Values only.
"""

from collections import OrderedDict
from collections.abc import Iterable

from tciafs.catalogue.table import Question

__all__ = ["Lately", "WrittenRow"]

COLLECTIONS = 2
"""So many listings of whole collections are remembered: as many as are under way at once."""

WrittenRow = tuple[str, bytes]
"""A patient, and the row that holds what was answered of him."""


class Lately:
    """Rows by question, of the last collections listed at once; who adds them sees to their number."""

    def __init__(self) -> None:
        self._rows: OrderedDict[Question, dict[str, bytes]] = OrderedDict()

    def begin(self, kind: str, collection: str) -> None:
        """Forget the rows of a kind and a collection: they will be written anew."""
        self._rows[kind, collection] = {}
        self._rows.move_to_end((kind, collection))
        if len(self._rows) > COLLECTIONS:
            self._rows.popitem(last=False)

    def add(self, kind: str, collection: str, rows: Iterable[WrittenRow]) -> None:
        """Keep rows of a listing that has begun."""
        if (known := self._rows.get((kind, collection))) is not None:
            known.update(rows)

    def take(self, question: Question) -> bytes | None:
        """Return a row and forget it, None if it is not here."""
        rows = self._rows.get(question[:2])
        return None if rows is None or len(question) < 3 else rows.pop(question[2], None)
