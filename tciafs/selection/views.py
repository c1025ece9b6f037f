"""Views of what a mount shows: by modality, body part, manufacturer, manifest, and what is new since a day.

A view is a selection from the same catalogue: what the mount has chosen, and one thing more. So all listings
are shared, and so is what is told of changes. Selections are made when somebody looks, and the last ones are
kept. Used from the daemon's one thread.
"""

import datetime as dt
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from tciafs.catalogue.answers import Answer
from tciafs.catalogue.table import Question
from tciafs.errors import NoSuchName
from tciafs.hidden import BY_MANIFEST, KINDS, View
from tciafs.model import Value
from tciafs.selection.criteria import Criteria
from tciafs.selection.kept import KeptManifests
from tciafs.selection.manifests import Manifest
from tciafs.selection.named import Found, Lists
from tciafs.selection.selection import Choice, Selection

if TYPE_CHECKING:
    from tciafs.catalogue.catalogue import Catalogue

__all__ = ["Views"]

NEW_SINCE = "new-since"

OF_VALUES = {"by-modality": "modality", "by-body-part": "body_part", "by-manufacturer": "manufacturer"}

MOST_SELECTIONS = 100
"""So many views are kept that were looked at; of one with a manifest where its series are, too."""

Changed = Callable[[View, Question, Sequence[Any], Sequence[Any]], None]


class Views:
    """The views of a mount; see `filesystem.sources.Views`. Use `Views.running`.

    `on_replaced` is told of changes in the views that somebody has looked at.
    """

    def __init__(
        self, catalogue: "Catalogue", mounted: Selection, manifests: KeptManifests, nursery: trio.Nursery
    ) -> None:
        self._catalogue = catalogue
        self._mounted = mounted
        self._manifests = manifests
        self._nursery = nursery
        self._selections: OrderedDict[View, Selection] = OrderedDict()
        self.on_replaced: Changed = lambda view, question, before, after: None

    @classmethod
    @asynccontextmanager
    async def running(
        cls, catalogue: "Catalogue", mounted: Selection, manifests: KeptManifests
    ) -> AsyncIterator["Views"]:
        """Make views of what a mount shows; at the end, end what they ask."""
        async with trio.open_nursery() as nursery:
            yield cls(catalogue, mounted, manifests, nursery)
            nursery.cancel_scope.cancel()

    async def kinds(self) -> Answer[Value]:
        """Return the kinds of views."""
        return Answer(tuple(map(Value, KINDS)), math.inf)

    async def words(self, kind: str) -> Answer[Value]:
        """Return which views of a kind there are to be listed; of days those that somebody looked at."""
        if kind in OF_VALUES:
            return await self._mounted.values(OF_VALUES[kind])
        if kind == BY_MANIFEST:
            return Answer(tuple(map(Value, sorted(self._manifests.manifests))), time.time())
        days = sorted(word for kind, word in self._selections if kind == NEW_SINCE)
        return Answer(tuple(map(Value, days)), time.time())

    def finds(self, view: View) -> bool:
        """Return whether there is a view that no listing shows: any day is one."""
        kind, word = view
        return kind == NEW_SINCE and _day(word) is not None

    def listings(self, view: View) -> Selection:
        """Return what a view shows. Raises NoSuchName."""
        if view not in self._selections:
            choice = self._choice(*view) & self._mounted.choice
            selection = self._selections[view] = Selection(self._catalogue, choice, self._nursery)
            selection.on_replaced = lambda *change: self.on_replaced(view, *change)
        self._selections.move_to_end(view)
        while len(self._selections) > MOST_SELECTIONS:
            self._selections.popitem(last=False)
        return self._selections[view]

    def has_metadata(self, view: View) -> bool:
        """Return whether a view has a metadata.csv, as a mount of a manifest has."""
        return view[0] == BY_MANIFEST

    def note(self, question: Question, before: Sequence[Any], after: Sequence[Any]) -> None:
        """Take note of an answer of the catalogue that differs from the one before."""
        for selection in list(self._selections.values()):
            selection.note(question, before, after)

    # -- manifests --------------------------------------------------------------------------------

    @property
    def manifests(self) -> Sequence[Manifest]:
        """The manifests of which there are views, in the order of their names."""
        return [each for _name, each in sorted(self._manifests.manifests.items())]

    async def add(self, manifest: Manifest) -> None:
        """Keep a manifest, and make a view of it. Raises Misuse."""
        await trio.to_thread.run_sync(self._manifests.add, manifest)
        self._selections.pop((BY_MANIFEST, manifest.name), None)

    async def remove(self, name: str) -> None:
        """Drop a manifest and its view. Raises NoSuchName."""
        await trio.to_thread.run_sync(self._manifests.remove, name)
        self._selections.pop((BY_MANIFEST, name), None)

    async def found(self, name: str) -> Found:
        """Return where the series of a manifest are. Raises NoSuchName, or what the archive raises."""
        return await self.listings((BY_MANIFEST, name)).found()

    def _choice(self, kind: str, word: str) -> Choice:
        if kind in OF_VALUES:
            return Choice(Criteria().with_words(OF_VALUES[kind], (word,)))
        if kind == BY_MANIFEST and word in self._manifests.manifests:
            return Choice(lists=(Lists((self._manifests.manifests[word],)),))
        if kind == NEW_SINCE and (day := _day(word)) is not None:
            return Choice(Criteria(released_since=day))
        raise NoSuchName(f"there is no view {word!r} in {kind}")


def _day(word: str) -> dt.date | None:
    try:
        day = dt.date.fromisoformat(word)
    except ValueError:
        return None
    return day if day.isoformat() == word else None
