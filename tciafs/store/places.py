"""Where packs lie in the cache folder: `series/xx/<hash>.pack`, and `incoming/<run>/` what is on its way.

Each run of a daemon has a folder of its own for what comes in. Who comes after removes the folders of all
others, and from then on a process that was left over can put nothing into the cache. Defined here and only
here: names of files. Blocking calls, which may raise OSError.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tciafs.store.disk import make_folder, sync_folder

__all__ = ["Places", "place_name"]

SUFFIX = ".pack"
SWEEPS = 100
"""How often a folder of a dead run is emptied in which another process still makes files."""


class Places:
    """The folders of one cache, which are made where they are missing, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packs = folder / "series"
        self._all_incoming = folder / "incoming"
        self._incoming = self._all_incoming / secrets.token_hex(8)
        make_folder(self._packs)
        make_folder(self._all_incoming)

    def of(self, series_uid: str) -> Path:
        """Return where the pack of a series belongs."""
        return self.path(place_name(series_uid))

    def path(self, name: str) -> Path:
        """Return the path of what `names` called so."""
        return self._packs / name

    def incoming(self, series_uid: str) -> Path:
        """Return the path of a file that does not exist yet, for a pack about to come in."""
        return self._incoming / f"{self.of(series_uid).stem}.{time.monotonic_ns():x}"

    def put(self, incoming: Path, series_uid: str) -> None:
        """Move a pack, which is on disk, to where it belongs; it survives a power failure there."""
        place = self.of(series_uid)
        make_folder(place.parent)
        incoming.rename(place)
        sync_folder(place.parent)

    def names(self) -> Iterator[str]:
        """Yield the names of all files where packs belong, whatever they are."""
        for folder in _entries(self._packs):
            if folder.is_dir(follow_symlinks=False):
                yield from (f"{folder.name}/{file.name}" for file in _entries(folder))
            else:
                yield folder.name

    def begin_run(self) -> None:
        """Remove what came in when another run ended, and begin a folder for what comes in now."""
        for leftover in _entries(self._all_incoming):
            if leftover.is_dir(follow_symlinks=False):
                _remove_folder(Path(leftover.path))
            else:
                Path(leftover.path).unlink()
        self._incoming.mkdir(mode=0o700)

    def end_run(self) -> None:
        """Remove the folder of this run, if it is empty."""
        with suppress(OSError):
            self._incoming.rmdir()


def place_name(series_uid: str) -> str:
    """Return what `Places.names` calls the pack of a series."""
    # A UID is what a server said; its hash is a file name whatever it said.
    digest = hashlib.blake2b(series_uid.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{digest[:2]}/{digest}{SUFFIX}"


def _entries(folder: os.PathLike[str]) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return list(entries)


def _remove_folder(folder: Path) -> None:
    """Remove a folder of files, in which a process that is ending may still make some."""
    for _ in range(SWEEPS - 1):
        for file in _entries(folder):
            Path(file.path).unlink(missing_ok=True)
        with suppress(OSError):
            return folder.rmdir()
    folder.rmdir()
    return None
