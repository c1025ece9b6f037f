"""The error vocabulary: what can go wrong, as which errno, and what the user can do about it.

Every failure that leaves a room is one of these classes; `filesystem/operations` turns them into
errno and `cli` into one sentence and an exit code. Defined here and only here.

    TciafsError                 EIO
    ├── NoSuchName              ENOENT         no record of that name
    ├── ReadOnly                EROFS          any write
    ├── AccessDenied            EACCES         login missing or refused, series not permitted
    ├── Unreachable             EHOSTUNREACH   network away, 5xx, reset, after the retries
    │   └── Offline             EHOSTUNREACH   the user said --offline and it is not cached
    ├── DeadlinePassed          ETIMEDOUT      a wait reached its bound
    ├── SlowDown                EBUSY          the server keeps saying 429 or 503
    ├── UnreadableAnswer        EPROTO         not the JSON, ZIP or rows that were asked for
    ├── SeriesDamaged           EIO            short, wrong sizes or checksums, after the retries
    ├── NoSpace                 ENOSPC         the cache limit or the disk is full
    ├── Refused                 EPERM          the guard: crawler, budget, pause
    ├── Interrupted             EINTR          the waiting process was told to die
    ├── NoDaemon                (exit 1)       nobody answers commands about a mount
    ├── Unusable                (exit 3)       the mount point or FUSE cannot be used
    └── Misuse                  (exit 2)       a wrong option, value or file
        └── NotAgreed           (exit 2)       the data usage policy has not been agreed to
"""

import errno
from typing import ClassVar, Self

__all__ = [
    "AccessDenied",
    "DeadlinePassed",
    "Interrupted",
    "Misuse",
    "NoDaemon",
    "NoSpace",
    "NoSuchName",
    "NotAgreed",
    "Offline",
    "ReadOnly",
    "Refused",
    "SeriesDamaged",
    "SlowDown",
    "TciafsError",
    "Unreachable",
    "UnreadableAnswer",
    "Unusable",
    "error_named",
]


class TciafsError(Exception):
    """Something failed in a way that has a name; `str()` is the sentence for the user.

    `errno` is what a file operation returns, `exit_code` what a command returns
    (1 the work failed, 2 wrong use, 3 mount point or FUSE not usable, 4 the archive refused),
    `hint` what the user can do, and `retryable` whether asking again soon may succeed: a matter of the
    class, unless whoever raises an error knows better and sets it on that one.
    """

    errno: ClassVar[int] = errno.EIO
    exit_code: ClassVar[int] = 1
    hint: ClassVar[str] = "See tciafs status, and the log."
    retryable: bool = False

    def bare(self) -> Self:
        """Return the same error without traceback and causes, which one that is remembered would hold."""
        # Not by copy.copy, which calls `__init__` with what `str()` shows, though a class may ask for more.
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__)
        return error


class NoSuchName(TciafsError):
    """The archive has no record of that name."""

    errno = errno.ENOENT
    hint = "List the folder above to see the names that exist."


class ReadOnly(TciafsError):
    """Somebody tried to write."""

    errno = errno.EROFS
    hint = "The archive cannot be changed; copy the files elsewhere first."


class AccessDenied(TciafsError):
    """Login is missing or was refused, or the series is not permitted to this user."""

    errno = errno.EACCES
    exit_code = 4
    hint = (
        "Limited-access data needs permission from its archive, and then tciafs login and a new mount; "
        "most of it has moved away from NBIA."
    )


class Unreachable(TciafsError):
    """The archive could not be reached, or failed, until the retries were used up."""

    errno = errno.EHOSTUNREACH
    hint = "Check the network, the proxy, --url and --idc-url; what is cached stays readable."
    retryable = True


class Offline(Unreachable):
    """--offline was given, and the answer is not in the cache."""

    hint = "Mount without --offline to let tciafs ask the archive."
    retryable = False


class DeadlinePassed(TciafsError):
    """A wait reached its bound."""

    errno = errno.ETIMEDOUT
    hint = "The archive is slow or the line is; try again, or raise --listing-timeout or --stall-timeout."
    retryable = True


class SlowDown(TciafsError):
    """The server keeps asking for fewer requests; `retry_after_s` is its wish (None: not said)."""

    errno = errno.EBUSY
    hint = "Wait a while, or lower --downloads."
    retryable = True

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnreadableAnswer(TciafsError):
    """The archive answered something that is not what was asked for."""

    errno = errno.EPROTO
    hint = "Check --url and --api; a proxy or a maintenance page may be answering instead."
    retryable = True


class SeriesDamaged(TciafsError):
    """A series arrived short, or its bytes do not agree with what the archive says of them."""

    errno = errno.EIO
    hint = "The copy on the server may be incomplete; try again later, or tell the archive's help desk."
    retryable = True


class NoSpace(TciafsError):
    """The cache limit does not allow it, or the disk is full."""

    errno = errno.ENOSPC
    hint = "Raise --cache-size, or free space on the disk of --cache-dir."


class Refused(TciafsError):
    """The guard does not let this process cause a download."""

    errno = errno.EPERM
    hint = "What is cached stays readable."


class Interrupted(TciafsError):
    """The process that waited for an answer received a signal."""

    errno = errno.EINTR
    hint = ""


class NoDaemon(TciafsError):
    """The daemon of a mount is dead, or does not answer commands."""

    hint = ""


class Unusable(TciafsError):
    """The mount point, or FUSE on this machine, cannot be used."""

    exit_code = 3
    hint = ""


class Misuse(TciafsError):
    """An option, a value or a file given by the user is wrong."""

    errno = errno.EINVAL
    exit_code = 2
    hint = "See tciafs --help."


class NotAgreed(Misuse):
    """The data usage policy of the archive has not been agreed to."""

    hint = "Read it, then run: tciafs agree; services set TCIAFS_AGREE_TO_POLICY=yes."


def error_named(name: str, message: str, retry_after_s: float | None = None) -> TciafsError:
    """Return the error of class `name` with `message`; an unknown name gives a plain TciafsError.

    Errors cross pipes and outlive processes as these values; `retry_after_s` belongs to SlowDown.
    """
    cls = globals().get(name)
    if cls is SlowDown:
        return SlowDown(message, retry_after_s)
    if isinstance(cls, type) and issubclass(cls, TciafsError):
        return cls(message)
    return TciafsError(message)
