"""What commands and daemon say to each other about manifests: a part of version 1 of the protocol.

A manifest may be longer than a request, so it comes in several. Values only; see `values`.
"""

import msgspec

__all__ = [
    "AddManifest",
    "AddedManifest",
    "KeptManifest",
    "ListManifests",
    "ManifestPage",
    "RemoveManifest",
]


class AddManifest(msgspec.Struct, frozen=True):
    """`POST /v1/add-manifest`: take some UIDs of a manifest; with the last ones it `is_whole` and kept.

    The first ones are those behind `place` 0.
    """

    name: str
    uids: tuple[str, ...]
    place: int
    is_whole: bool


class AddedManifest(msgspec.Struct, frozen=True):
    """What came of it: `series` are there to be seen, `remarks` say what is not."""

    series: int
    remarks: tuple[str, ...]


class ListManifests(msgspec.Struct, frozen=True):
    """`POST /v1/manifests`: list the manifests that are kept, those behind a name ("": all)."""

    after: str = ""


class KeptManifest(msgspec.Struct, frozen=True):
    """A manifest that is kept, and how many series it names."""

    name: str
    series: int


class ManifestPage(msgspec.Struct, frozen=True):
    """Some of the manifests in the order of their names; `more`: others follow."""

    manifests: tuple[KeptManifest, ...]
    more: bool


class RemoveManifest(msgspec.Struct, frozen=True):
    """`POST /v1/remove-manifest`: drop a manifest and its view."""

    name: str
