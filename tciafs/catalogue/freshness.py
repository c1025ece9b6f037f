"""How long a listing is believed: the time to live, what the archive says it changed, doubts, and wishes.

Four things decide. The **time to live**, short for a listing of nothing and for a partial one. **Changes**:
a listing that the archive, asked what it has released since, does not contradict stays fresh. **Doubt**: a
listing that had records and comes back empty is believed only when a later answer agrees. **Wishes**: what
a user wants to be asked again is old from that moment, until the archive has answered. Values only: the
catalogue asks the archive and writes down.
"""

import math
import time
from typing import Any, NamedTuple

import msgspec
import trio

from tciafs.catalogue.changes import Changes
from tciafs.catalogue.table import Listing, Question

__all__ = ["EMPTY_CONFIRMED_S", "EMPTY_TTL_S", "Freshness"]

EMPTY_TTL_S = 300.0
"""That there is nothing is believed for this long at most."""

EMPTY_CONFIRMED_S = 60.0
"""A listing that had records and comes back empty is believed when an answer this much later agrees."""

PARTIAL_TTL_S = 300.0
"""So long is a listing believed that lacks what a server could not add; it is then asked for again behind."""

MOST_WISHES = 10_000


class _Doubt(NamedTuple):
    """Since when a question is answered with nothing (trio's clock), and when it was asked last (Unix)."""

    since: float
    asked_at: float


class Freshness:
    """What is known of the age of listings. Unix seconds, but for doubts, which last by trio's clock."""

    def __init__(self, ttl_s: float, changes: bytes | None, wishes: bytes | None) -> None:
        """Begin with what an earlier run wrote down; what cannot be read is as if it had not."""
        self._ttl_s = ttl_s
        self.changes = Changes(time.time())
        self._wishes: dict[Question, float] = {}
        self._doubts: dict[Question, _Doubt] = {}
        try:
            if changes is not None:
                self.changes = Changes.read(changes, time.time())
            if wishes is not None:
                self._wishes = dict(msgspec.msgpack.decode(wishes, type=list[tuple[Question, float]]))
        except msgspec.MsgspecError:
            # What cannot be read vouches for nothing: then more is asked than need be, and none too little.
            self._wishes[()] = time.time()

    def fresh_until(self, question: Question, listing: Listing[Any]) -> float:
        """Return until when a listing is believed; now, or in the past: the archive should be asked."""
        now = time.time()
        if self.is_unwanted(question, listing):
            return now
        if (doubt := self._doubts.get(question)) is not None:
            return now + EMPTY_CONFIRMED_S - (trio.current_time() - doubt.since)
        if listing.asked_at > now:
            return now  # the clock was set back since, so its age is not known
        if not listing.records:
            return listing.asked_at + min(self._ttl_s, EMPTY_TTL_S)
        if listing.is_partial:
            return listing.asked_at + min(self._ttl_s, PARTIAL_TTL_S)
        vouched = self.changes.vouches_until(question, listing.asked_at, self._ttl_s)
        return max(listing.asked_at + self._ttl_s, vouched)

    def could_be_vouched_for(self, question: Question, listing: Listing[Any]) -> bool:
        """Return whether to ask for changes may make an old listing fresh again."""
        if question in self._doubts or not listing.records or listing.is_partial:
            return False
        looked_lately = self.changes.looked_at + self._ttl_s > time.time()
        return not looked_lately and self.changes.may_vouch(question, listing.asked_at)

    # -- doubt ------------------------------------------------------------------------------------

    def doubts(self, question: Question, before: Listing[Any] | None, now: Listing[Any]) -> bool:
        """Note an answer; return whether it is too empty to be believed before another one agrees.

        NBIA says nothing, with status 200, where it has nothing as well as where something of its own
        fails.
        """
        if now.records or before is None or not before.records:
            self._doubts.pop(question, None)
            return False
        at = trio.current_time()
        since = self._doubts[question].since if question in self._doubts else at
        self._doubts[question] = _Doubt(since, now.asked_at)
        if at - since < EMPTY_CONFIRMED_S:
            return True
        del self._doubts[question]
        return False

    # -- wishes -----------------------------------------------------------------------------------

    def wish(self, whose: Question, at: float) -> None:
        """Let what was listed before `at` be old: of () all, a (collection,) or a (collection, patient)."""
        if len(self._wishes) >= MOST_WISHES:
            self._wishes.clear()
            whose = ()
        self._wishes[whose] = at

    def is_unwanted(self, question: Question, listing: Listing[Any]) -> bool:
        """Return whether a user wished the archive to be asked since it was, for a listing that is known."""
        if not self._wishes:
            return False
        doubt = self._doubts.get(question)
        asked_at = listing.asked_at if doubt is None else max(listing.asked_at, doubt.asked_at)
        whose = question[1:]
        wished_at = max(self._wishes.get(whose[:n], -math.inf) for n in range(len(whose[:2]) + 1))
        return asked_at < wished_at

    def written_wishes(self) -> bytes:
        """Return the wishes as bytes."""
        return msgspec.msgpack.encode(list(self._wishes.items()))
