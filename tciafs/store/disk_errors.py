"""What the operating system says of a disk -> our errors.

Defined here and only here: which error numbers mean that the disk is full. For the store and for the
worker processes, which write to the same folder.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tciafs.errors import NoSpace, TciafsError

__all__ = ["disk_errors", "translate_disk_error"]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def translate_disk_error(error: OSError) -> TciafsError:
    """Return NoSpace where the disk is full, else a plain TciafsError, with a sentence for the user."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return NoSpace(f"the disk of the cache folder is full: {reason}")
    return TciafsError(f"the cache folder failed: {reason}")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise what the operating system says inside as an error of ours."""
    try:
        yield
    except OSError as error:
        raise translate_disk_error(error) from error
