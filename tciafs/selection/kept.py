"""Manifests that a user has given to a mount: kept in its cache folder, each as a plain `.tcia` file.

All of them are in memory, some 100 bytes a series. Blocking calls; where a file cannot be written, nothing
has changed.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from tciafs.errors import Misuse, NoSuchName, TciafsError
from tciafs.hidden import MANIFEST_SUFFIX
from tciafs.naming import legal_name, original_name
from tciafs.selection.manifests import Manifest, manifest_text, read_manifest

__all__ = ["MOST_SERIES", "KeptManifests"]

log = logging.getLogger(__name__)

MOST_MANIFESTS = 200
MOST_SERIES = 1_000_000
LONGEST_NAME_BYTES = 200


class KeptManifests:
    """The manifests in a folder, by name."""

    def __init__(self, folder: Path) -> None:
        """Read all that are there; what cannot be read is left out, and the log says so."""
        self._folder = folder
        self._manifests: dict[str, Manifest] = {}
        for path in sorted(folder.glob("*" + MANIFEST_SUFFIX)) if folder.is_dir() else ():
            name = original_name(path.stem)
            try:
                read = read_manifest(path)
            except Misuse as error:
                log.warning("%s", error)
                continue
            if name is not None:
                self._manifests[name] = Manifest(name, read.uids)

    @property
    def manifests(self) -> Mapping[str, Manifest]:
        """All of them by name."""
        return self._manifests

    def add(self, manifest: Manifest) -> None:
        """Keep a manifest, instead of one of the same name. Raises Misuse."""
        others = [each for each in self._manifests.values() if each.name != manifest.name]
        if not 0 < len(legal_name(manifest.name).encode()) <= LONGEST_NAME_BYTES or not manifest.name:
            raise Misuse(f"the name of a manifest has 1 to {LONGEST_NAME_BYTES} bytes")
        if len(others) >= MOST_MANIFESTS:
            raise Misuse(f"there are {MOST_MANIFESTS} manifests already; remove one first")
        if sum(len(each.uids) for each in (*others, manifest)) > MOST_SERIES:
            raise Misuse(f"all manifests together would name more than {MOST_SERIES:,} series")
        try:
            self._write(self._path(manifest.name), manifest_text(manifest.uids))
        except OSError as error:
            raise TciafsError(f"the manifest could not be kept: {error.strerror}") from error
        self._manifests[manifest.name] = manifest

    def remove(self, name: str) -> None:
        """Drop a manifest. Raises NoSuchName."""
        if name not in self._manifests:
            raise NoSuchName(f"there is no manifest {name!r}")
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise TciafsError(f"the manifest could not be removed: {error.strerror}") from error
        del self._manifests[name]

    def _path(self, name: str) -> Path:
        return self._folder / (legal_name(name) + MANIFEST_SUFFIX)

    def _write(self, path: Path, text: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A name that no manifest has: it does not end as theirs do.
        incoming = self._folder / "incoming"
        descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        incoming.rename(path)
