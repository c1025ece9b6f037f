"""Whether a body comes so slowly that it will never come: a line that drips is as dead as a silent one.

Defined here and only here: that rule. No clock of its own, no I/O.
"""

__all__ = ["LEAST_BYTES_PER_S", "Pace"]

LEAST_BYTES_PER_S = 100
"""A telephone modem brings fifty times as much; at this rate half a megabyte takes over an hour."""


class Pace:
    """The pace of one body, over spells of waiting that are `spell_s` long together."""

    def __init__(self, spell_s: float) -> None:
        self._spell_s = spell_s
        self._waited_s = 0.0
        self._size_bytes = 0

    def is_dead(self, size_bytes: int, waited_s: float) -> bool:
        """Note bytes that came after a wait; return whether a spell ends here that brought too few.

        Only waiting counts, and a single wait as one spell at most: whoever was stopped meanwhile (a pause, a
        debugger) must not take that for the server's doing.
        """
        self._waited_s += min(waited_s, self._spell_s)
        self._size_bytes += size_bytes
        if self._waited_s < self._spell_s:
            return False
        is_dead = self._size_bytes < LEAST_BYTES_PER_S * self._waited_s and waited_s < self._spell_s
        self._waited_s, self._size_bytes = 0.0, 0
        return is_dead
