"""How long an archive is waited for, how much is taken from it, and what pause it asks for itself.

Values only, free of any HTTP library, so that a configuration can hold them and cross to a worker.
"""

import datetime as dt
import email.utils
from dataclasses import dataclass

__all__ = ["HttpLimits", "parse_retry_after_s"]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long to wait and how much to take; the defaults suit a person at a prompt.

    `stall_timeout_s` bounds the silence before each piece of an answer, `pool_timeout_s` the wait
    for one of `connections`. `listing_timeout_s` bounds a whole listing with its retries and the
    pauses between them, `whole_timeout_s` one whose rows are handed on while they come; no more
    than `listing_size_bytes` is inflated of either. A server that asks for a pause longer than
    `retry_after_max_s` is not asked again: the request fails at once, so that nobody hangs and
    nobody is impolite.
    """

    connect_timeout_s: float = 10
    stall_timeout_s: float = 60
    write_timeout_s: float = 30
    pool_timeout_s: float = 60
    listing_timeout_s: float = 120
    whole_timeout_s: float = 600
    listing_size_bytes: int = 1 << 30
    connections: int = 8
    retry_after_max_s: float = 60
    backoff_initial_s: float = 0.5
    backoff_max_s: float = 10

    @property
    def start_timeout_s(self) -> float:
        """Longest wait for the start of an answer, redirects and all, however slowly its headers come."""
        return self.pool_timeout_s + self.connect_timeout_s + self.write_timeout_s + self.stall_timeout_s


def parse_retry_after_s(text: str, now: dt.datetime) -> float | None:
    """Return the pause that a Retry-After header asks for, in seconds; None if it is not readable.

    Both forms of RFC 9110 section 10.2.3: a number of seconds, or a date, which is a pause of 0
    when it has passed.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - now).total_seconds())
