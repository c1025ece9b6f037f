"""Whether a series is tried again after a failure, and when."""

import logging

from tciafs.errors import SeriesDamaged, SlowDown, TciafsError

__all__ = ["LONGEST_PAUSE_S", "delay_before_retry", "may_get_better", "may_go_on"]

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0
"""A server that asks for a longer pause is not asked again, so that nobody hangs and nobody is impolite."""

SHORTEST_PAUSE_S = 1.0
"""A server that asks for a shorter one, or names a moment that has passed, gets the usual pause."""


def delay_before_retry(error: Exception) -> bool | float:
    """Say whether to try again, or after how many seconds if the server asked for a pause."""
    log.info("a try failed: %s", error)
    if not may_get_better(error):
        return False
    if isinstance(error, SlowDown) and error.retry_after_s is not None:
        if error.retry_after_s > LONGEST_PAUSE_S:
            return False
        if error.retry_after_s >= SHORTEST_PAUSE_S:
            return error.retry_after_s
    return True


def may_get_better(error: BaseException) -> bool:
    """Say whether all of ours that led to `error` may go away, such as a request that was refused may not."""
    cause = error.__cause__
    if isinstance(cause, TciafsError) and not may_get_better(cause):
        return False
    return isinstance(error, TciafsError) and error.retryable


def may_go_on(error: Exception) -> bool:
    """Say whether the images that came one by one before `error` are good as they are."""
    return may_get_better(error) and not isinstance(error, SeriesDamaged)
