"""The log of a daemon: the console and a file, each as detailed as wanted; set aside when large, reopened.

Defined here and only here: what a line of the log looks like. Several daemons may write one file, and
logrotate may move it away: whoever writes looks first whether the file is still in its place.
"""

import faulthandler
import fcntl
import logging
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tciafs import request_ids
from tciafs.log_files import ONLY_US, log_file_of, open_log
from tciafs.printable import printable
from tciafs.settings import Settings

__all__ = [
    "reopen",
    "set_level",
    "stacks_on_signal",
    "start_logging",
    "write_plainly",
]

OURS = "tciafs"


class LogFile(logging.StreamHandler[TextIO]):
    """Appends to the file at `path` through a stream whose descriptor stays the same.

    So whatever else writes there goes along when the file is another one. A file that has reached
    `most_bytes` (0: any size) is set aside as PATH.1, of which `kept` are kept.
    """

    def __init__(self, path: Path, stream: TextIO, most_bytes: int, kept: int) -> None:
        super().__init__(stream)
        self.path = path
        self._most_bytes = most_bytes
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, to a new file where that is due; what goes wrong with that costs no record."""
        with suppress(OSError):
            self._look_after_file()
        super().emit(record)

    def close(self) -> None:
        """Close the file, unless it is what others write to, too."""
        if self.stream is not sys.stderr:
            self.stream.close()
        super().close()

    def reopen(self) -> None:
        """Go on in the file that is at `path` now, which is made if need be. Raises OSError."""
        wanted = self.stream.fileno()
        new = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, ONLY_US)
        try:
            os.dup2(new, wanted, inheritable=os.get_inheritable(wanted))
        finally:
            os.close(new)

    def _look_after_file(self) -> None:
        ours = os.fstat(self.stream.fileno())
        if not stat.S_ISREG(ours.st_mode):
            return
        if not _is_at(self.path, ours):
            self.reopen()
        elif self._most_bytes and ours.st_size >= self._most_bytes:
            self._set_aside()

    def _set_aside(self) -> None:
        """Move the file away and go on in a new one. Raises OSError, also if another daemon is doing so."""
        descriptor = self.stream.fileno()
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if _is_at(self.path, os.fstat(descriptor)):
                for number in range(self._kept - 1, 0, -1):
                    with suppress(FileNotFoundError):
                        _numbered(self.path, number).replace(_numbered(self.path, number + 1))
                if self._kept:
                    self.path.replace(_numbered(self.path, 1))
                else:
                    self.path.unlink()
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        self.reopen()


def start_logging(settings: Settings, *, in_background: bool) -> None:
    """Have this process log as the settings say. Raises Unusable for a file that cannot be written.

    A daemon in the background has its log file as its standard error.
    """
    path = log_file_of(settings)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if in_background and _is_at(path, os.fstat(sys.stderr.fileno())):
        handlers = [LogFile(path, sys.stderr, settings.log_size, settings.log_count)]
    elif not in_background and settings.log_file is not None:
        handlers.append(LogFile(path, open_log(path), settings.log_size, settings.log_count))
    for handler in handlers:
        handler.setFormatter(_Formatter())
        wanted = settings.log_file_level if isinstance(handler, LogFile) else None
        handler.setLevel((wanted or settings.log_level).upper())
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    _let_through(handlers)
    # Each retry is our own affair; what comes of it is logged where it is known.
    logging.getLogger("stamina").setLevel(logging.ERROR)


def set_level(level: str) -> None:
    """Have the console and the file log this much from now on: "error", "warning", "info" or "debug"."""
    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.setLevel(level.upper())
    _let_through(handlers)


def reopen() -> None:
    """Go on in the log file that is in its place now."""
    for handler in _files():
        try:
            handler.reopen()
        except OSError as error:
            logging.getLogger(__name__).warning("%s could not be reopened: %s", handler.path, error.strerror)


@contextmanager
def stacks_on_signal(number: signal.Signals) -> Iterator[None]:
    """Have this signal write the stacks of all threads into the log, also while nothing else goes on.

    Whoever handled the signal before still does, after that.
    """
    faulthandler.register(number, file=_descriptor(), all_threads=True, chain=True)
    try:
        yield
    finally:
        faulthandler.unregister(number)


def write_plainly(text: str) -> None:
    """Write a text of several lines into the log as it is, whatever its level."""
    with suppress(OSError):
        os.write(_descriptor(), text.encode(errors="backslashreplace"))


def _files() -> list[LogFile]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, LogFile)]


def _descriptor() -> int:
    """Return that of the log file, which is always the same, or of standard error where there is no file."""
    return next((handler.stream.fileno() for handler in _files()), 2)


def _let_through(handlers: list[logging.Handler]) -> None:
    logging.getLogger(OURS).setLevel(min(handler.level for handler in handlers))


def _is_at(path: Path, file: os.stat_result) -> bool:
    """Return whether it is this file that is at `path`."""
    try:
        return os.path.samestat(path.stat(), file)
    except OSError:
        return False


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


class _Formatter(logging.Formatter):
    """A record is a line, whatever an archive has put into it, and a traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s%(request)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        number = request_ids.current()
        record.__dict__["request"] = f" [{number}]" if number else ""
        return printable(super().formatMessage(record))
