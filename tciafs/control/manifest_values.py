"""What commands and daemon say to each other about manifests: a part of version 1 of the protocol.

A manifest may be longer than a request, so it comes in several. Values only; see `values`.
"""

from dataclasses import dataclass

__all__ = [
    "AddManifest",
    "AddedManifest",
    "KeptManifest",
    "ListManifests",
    "ManifestPage",
    "RemoveManifest",
]


@dataclass(frozen=True, slots=True)
class AddManifest:
    """`POST /v1/add-manifest`: take some UIDs of a manifest; with the last ones it `is_whole` and kept.

    The first ones are those behind `place` 0.
    """

    name: str
    uids: tuple[str, ...]
    place: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class AddedManifest:
    """What came of it: `series` are there to be seen, `remarks` say what is not."""

    series: int
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListManifests:
    """`POST /v1/manifests`: list the manifests that are kept, those behind a name ("": all)."""

    after: str = ""


@dataclass(frozen=True, slots=True)
class KeptManifest:
    """A manifest that is kept, and how many series it names."""

    name: str
    series: int


@dataclass(frozen=True, slots=True)
class ManifestPage:
    """Some of the manifests in the order of their names; `more`: others follow."""

    manifests: tuple[KeptManifest, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class RemoveManifest:
    """`POST /v1/remove-manifest`: drop a manifest and its view."""

    name: str
