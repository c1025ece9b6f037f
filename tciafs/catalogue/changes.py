"""What the archive says it has released lately: one question that keeps all old listings young.

A listing whose time has passed need not be asked for again where the archive, asked what it has released
since, does not name its patient. What was withdrawn it never names, so this holds for `VOUCHED_TTLS` times
the time to live; then the listing itself is asked for. Days, not moments, are what archives tell: two days
are added on the safe side, for clocks and time zones. Values only; the catalogue asks and writes down.
"""

import datetime as dt
from collections.abc import Sequence

import msgspec

from tciafs.catalogue.table import Question
from tciafs.model import Change

__all__ = ["Changes"]

VOUCHED_TTLS = 7
"""So many times as old as its time to live a listing gets before it is asked for all the same."""

MARGIN = dt.timedelta(days=2)
LONGEST_LOOK_BACK_S = 30 * 86_400.0
"""Who did not ask for longer starts anew: the answer would be long, and most listings too old for it."""

MOST_CHANGES = 50_000


class _Written(msgspec.Struct, frozen=True, array_like=True):
    """The form on disk."""

    since: float
    looked_at: float
    released: list[tuple[str, str, dt.date]]


class Changes:
    """What was released, of whom, from `since` to `looked_at` (Unix seconds)."""

    def __init__(self, now: float) -> None:
        """Begin to watch: of listings that are older than `now` nothing is known."""
        self.since = self.looked_at = now
        self._patients: dict[tuple[str, str], dt.date] = {}
        self._collections: dict[str, dt.date] = {}

    @classmethod
    def read(cls, written: bytes, now: float) -> "Changes":
        """Return what `written` was made of. Raises msgspec.MsgspecError."""
        read = msgspec.msgpack.decode(written, type=_Written)
        changes = cls(now)
        changes.since, changes.looked_at = read.since, min(read.looked_at, now)
        for collection, patient, released in read.released:
            changes._note(Change(collection, patient, released))
        return changes

    def written(self) -> bytes:
        """Return all this as bytes."""
        released = [(*whose, day) for whose, day in self._patients.items()]
        return msgspec.msgpack.encode(_Written(self.since, self.looked_at, released))

    def day_to_ask_from(self, now: float) -> dt.date | None:
        """Return the day after which to ask what was released; None: too long ago, and begun anew."""
        if now - self.looked_at > LONGEST_LOOK_BACK_S:
            self._start_anew(now)
            return None
        return _day(self.looked_at) - MARGIN

    def learn(self, changes: Sequence[Change], asked_at: float) -> None:
        """Take in what the archive answered when it was asked at `asked_at`."""
        self.looked_at = asked_at
        for change in changes:
            self._note(change)
        if len(self._patients) > MOST_CHANGES:
            self._start_anew(asked_at)

    def vouches_until(self, question: Question, asked_at: float, ttl_s: float) -> float:
        """Return until when a listing asked for at `asked_at` is as good as new; 0.0: it is not."""
        if not self.may_vouch(question, asked_at):
            return 0.0
        return min(self.looked_at + ttl_s, asked_at + VOUCHED_TTLS * ttl_s)

    def may_vouch(self, question: Question, asked_at: float) -> bool:
        """Return whether nothing is known to have been released that the listing would lack."""
        kind, *whose = question
        if kind not in ("patients", "studies", "series") or asked_at < self.since:
            return False
        day = self._collections.get(whose[0]) if len(whose) == 1 else self._patients.get((whose[0], whose[1]))
        return day is None or day < _day(asked_at) - MARGIN

    def _note(self, change: Change) -> None:
        whose = (change.collection, change.patient_id)
        self._patients[whose] = max(change.released, self._patients.get(whose, dt.date.min))
        of_collection = self._collections.get(change.collection, dt.date.min)
        self._collections[change.collection] = max(change.released, of_collection)

    def _start_anew(self, now: float) -> None:
        self.since = self.looked_at = now
        self._patients.clear()
        self._collections.clear()


def _day(unix_s: float) -> dt.date:
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).date()
