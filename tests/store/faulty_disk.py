"""A disk that fails, or forgets, as a test tells it: what Python code asks of the system passes through here.

Every call that names or syncs something below a folder is a step, and so is every statement of SQLite; steps
are numbered as they come. What SQLite does below its statements is its own affair, and well tested by others.
"""

import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Crash", "FaultyDisk", "PowerLog"]

NAMING = ("open", "rename", "unlink", "mkdir", "rmdir", "stat", "scandir", "fsync", "utime")


MOST_COMMITS = 4
"""Of rows that were not forced, all or the last few are lost."""


class Crash(BaseException):
    """The process died here; nothing that would tidy up gets through to the disk any more."""


@dataclass(slots=True)
class FaultyDisk:
    """Fails at step `fail_at` (0: never), and at all later ones if it `stays_broken`.

    `error` makes the error of a step; `late`: the step is taken, and fails then.
    """

    folder: Path
    error: Callable[[], BaseException] = lambda: OSError(errno.EIO, os.strerror(errno.EIO))
    fail_at: int = 0
    stays_broken: bool = False
    late: bool = False
    steps: int = 0
    names: list[str] = field(default_factory=list)
    _is_aside: bool = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let a test look at the disk: nothing counts, nothing fails."""
        self._is_aside = True
        try:
            yield
        finally:
            self._is_aside = False

    def step(self, name: str, do: Callable[[], Any], sql: bool = False) -> Any:
        """Take a step, or fail."""
        self.steps += 1
        self.names.append(name)
        fails = self.fail_at and (
            self.steps == self.fail_at or (self.stays_broken and self.steps > self.fail_at)
        )
        if not fails:
            return do()
        error = self.error()
        if self.late and not self.stays_broken:
            done = do()
            if hasattr(done, "close"):
                done.close()
        raise _as_sqlite(error) if sql and isinstance(error, OSError) else error

    def concerns(self, argument: object) -> bool:
        """Return whether a call is about this disk."""
        if isinstance(argument, int):
            argument = Path(f"/proc/self/fd/{argument}").readlink()
        return str(argument).startswith(str(self.folder))

    @contextmanager
    def in_use(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["FaultyDisk"]:
        """Have all calls pass through here."""
        with monkeypatch.context() as patched:
            for name in NAMING:
                patched.setattr(os, name, self._passing(f"os.{name}", getattr(os, name)))
            patched.setattr(io, "open", self._passing("open", io.open))
            really = sqlite3.connect
            patched.setattr(sqlite3, "connect", lambda *a, **k: really(*a, factory=self._connection(), **k))
            yield self

    def _passing(self, name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._is_aside or not args or not self.concerns(args[0]):
                return really(*args, **kwargs)
            return self.step(name, lambda: really(*args, **kwargs))

        return call

    def _connection(self) -> type[sqlite3.Connection]:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                return disk.step(sql, lambda: super(Connection, self).execute(sql, *args), sql=True)  # type: ignore[no-any-return]

            def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
                return disk.step(sql, lambda: super(Connection, self).executemany(sql, *args), sql=True)  # type: ignore[no-any-return]

        return Connection


def _as_sqlite(error: OSError) -> sqlite3.Error:
    failure = sqlite3.OperationalError(
        "database or disk is full" if error.errno == errno.ENOSPC else "disk I/O error"
    )
    failure.sqlite_errorcode = sqlite3.SQLITE_FULL if error.errno == errno.ENOSPC else sqlite3.SQLITE_IOERR
    return failure


# What a power failure leaves.


@dataclass(frozen=True, slots=True)
class _Naming:
    """Names change in one folder at a time: a file (or a folder, as number 0) appears, or a name goes."""

    adds: tuple[str, int] | None
    removes: str | None

    @property
    def folder(self) -> str:
        name = self.adds[0] if self.adds is not None else self.removes
        assert name is not None
        return str(Path(name).parent)


class PowerLog:
    """What was asked of a disk, with what was forced to it, so that all that may be lost can be left out.

    Names survive once their folder was synced, contents once their file was, and rows of the ledger once a
    later commit was forced. Of all else anything may be missing. `at_each` is called when that has changed.
    """

    def __init__(self, folder: Path, at_each: Callable[[], None]) -> None:
        self.folder = folder
        self._at_each = at_each
        self._namings: list[_Naming] = []
        self._synced: set[int] = set()
        self._files: dict[int, int] = {}
        self._numbers = count(1)
        self._contents: dict[int, bytes] = {}
        self._ledgers: list[bytes | None] = [None]
        self._forced = 0
        self._forces = False
        self._is_aside = False

    @contextmanager
    def recording(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["PowerLog"]:
        """Record what happens below the folder."""
        notes: dict[str, Callable[..., None]] = {
            "rename": self._rename,
            "unlink": self._unlink,
            "rmdir": self._unlink,
            "mkdir": self._mkdir,
            "fsync": self._sync,
        }
        with monkeypatch.context() as patched:
            for name, note in notes.items():
                patched.setattr(os, name, self._noting(getattr(os, name), note))
            really = sqlite3.connect
            patched.setattr(sqlite3, "connect", lambda *a, **k: really(*a, factory=self._connection(), **k))
            yield self

    def _noting(self, really: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            noted = not self._is_aside and (
                isinstance(args[0], int) or Path(args[0]).is_relative_to(self.folder)
            )
            if noted:  # before, while the names are still there; what fails ends the test
                note(*args)
            result = really(*args, **kwargs)
            if noted:
                self._tell()
            return result

        return call

    def _note(self, naming: _Naming) -> None:
        self._namings.append(naming)

    def _tell(self) -> None:
        self._is_aside = True
        try:
            self._at_each()
        finally:
            self._is_aside = False

    def _sync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self._synced |= {n for n, naming in enumerate(self._namings) if naming.folder == str(path)}
        else:
            self._contents[self._file(os.fstat(descriptor))] = path.read_bytes()

    def _file(self, status: os.stat_result) -> int:
        """Return what names a file for good: the system gives numbers of removed files to others."""
        return self._files.setdefault(status.st_ino, next(self._numbers))

    def _mkdir(self, folder: Path, *_: int) -> None:
        self._note(_Naming((str(folder), 0), None))

    def _unlink(self, path: Path) -> None:
        self._note(_Naming(None, str(path)))
        with suppress(FileNotFoundError):
            self._files.pop(path.stat().st_ino, None)

    def _rename(self, source: Path, target: Path) -> None:
        self._note(_Naming((str(target), self._file(source.stat())), str(source)))
        with suppress(FileNotFoundError):
            self._files.pop(target.stat().st_ino, None)

    def _connection(self) -> type[sqlite3.Connection]:
        log = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                cursor = super().execute(sql, *args)
                if log._is_aside:
                    return cursor
                if sql.startswith("PRAGMA synchronous"):
                    log._forces = "FULL" in sql
                if sql == "COMMIT":
                    log._ledgers.append(self.serialize())
                    log._forced = len(log._ledgers) - 1 if log._forces else log._forced
                    log._tell()
                return cursor

        return Connection

    def leftovers(self) -> Iterator[tuple[dict[str, bytes | None], bytes | None]]:
        """Yield what a power failure may leave now: files by name (None: a folder), and a ledger."""
        pending = [n for n in range(len(self._namings)) if n not in self._synced]
        lost = [frozenset(pending[n:]) for n in range(len(pending) + 1)]
        lost += [frozenset(pending[:n]) for n in range(1, len(pending))]
        ledgers = self._ledgers[self._forced :]
        for losing in dict.fromkeys(lost):
            names = self._names(losing)
            for ledger in [*ledgers[:1], *ledgers[1:][-MOST_COMMITS:]]:
                yield names, ledger

    def _names(self, losing: frozenset[int]) -> dict[str, bytes | None]:
        names: dict[str, int] = {}
        for number, naming in enumerate(self._namings):
            if number not in losing:
                if naming.removes is not None:
                    names.pop(naming.removes, None)
                if naming.adds is not None:
                    names[naming.adds[0]] = naming.adds[1]
        return {
            name: None if number == 0 else self._contents.get(number, b"") for name, number in names.items()
        }

    def restore(self, names: dict[str, bytes | None], ledger: bytes | None, folder: Path) -> None:
        """Write what was left into another folder."""
        for name, content in sorted(names.items()):
            path = folder / Path(name).relative_to(self.folder)
            if content is None:
                path.mkdir(exist_ok=True)
            elif path.parent.is_dir():
                path.write_bytes(content)
        if ledger is not None:
            (folder / "ledger.sqlite").write_bytes(ledger)
