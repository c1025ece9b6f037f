"""Names in a mount that are found and not listed: the folder of views, tables and manifests.

A listing shows the retriever's names and no others; these are there for who asks for them by name. Defined
here and only here: those names. Pure functions.
"""

from pathlib import PurePosixPath

__all__ = [
    "BY_MANIFEST",
    "COLLECTIONS_TABLE",
    "KINDS",
    "MANIFEST_SUFFIX",
    "SERIES_TABLE",
    "VIEWS_FOLDER",
    "View",
    "parted",
]

VIEWS_FOLDER = ".tciafs"
COLLECTIONS_TABLE = "collections.csv"
SERIES_TABLE = "series.csv"
MANIFEST_SUFFIX = ".tcia"

BY_MANIFEST = "by-manifest"
KINDS = ("by-body-part", BY_MANIFEST, "by-manufacturer", "by-modality", "new-since")
"""The folders in the folder of views; what is in each of them is a view."""

View = tuple[str, str]
"""A view of the archive: its kind, and which one of it, for example ("by-modality", "CT")."""


def parted(inside: PurePosixPath) -> tuple[PurePosixPath, PurePosixPath]:
    """Return the part of a path in a mount that leads to a view, and the rest, which begins at a collection.

    `inside` is relative to the mount point. The first part is empty outside all views.
    """
    parts = inside.parts
    depth = 0
    if parts[:1] == (VIEWS_FOLDER,):
        depth = 3 if parts[1:2] and parts[1] in KINDS else 1
    return PurePosixPath(*parts[:depth]), PurePosixPath(*parts[depth:])
