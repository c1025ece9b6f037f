"""What daemon and commands say to each other of what is known and on disk, as JSON of version 1.

Defined here and only here: the fields of `POST /v1/known` and `POST /v1/locate`; see `control.values` for the
rules. Values only.
"""

import msgspec

__all__ = ["KnownFolder", "KnownPage", "ListKnown", "Locate", "LocatedImage"]


class ListKnown(msgspec.Struct, frozen=True):
    """`POST /v1/known`: folders at a path that were listed before, those behind a name ("": all).

    The archive is not asked.
    """

    path: str
    after: str = ""


class KnownFolder(msgspec.Struct, frozen=True):
    """A folder by its name in the mount, and what is in it; a number is None where it is not known.

    `cached_bytes` is what its series take on disk. One of a series has a `state`: "local", "arriving",
    "evicted" (it was here), "failed" or "remote"; of others, state and UID are "".
    """

    name: str
    series: int | None
    images: int | None
    listed_bytes: int | None
    cached_series: int
    cached_bytes: int
    state: str = ""
    series_uid: str = ""
    modality: str | None = None


class KnownPage(msgspec.Struct, frozen=True):
    """Some of the `total` folders there, by name; `next` is the name behind which to go on, None at the end.

    Where nobody has listed them yet it is not `is_listed`, and nothing is known.
    """

    folders: tuple[KnownFolder, ...]
    total: int
    next: str | None
    is_listed: bool = True


class Locate(msgspec.Struct, frozen=True):
    """`POST /v1/locate`: where the bytes of an image on disk are, counted from 0 (None: the middle one)."""

    series_uid: str
    image: int | None = None


class LocatedImage(msgspec.Struct, frozen=True):
    """The `image`th of `images` is in the file `pack`, from `offset` on.

    That file may be gone at any time; who has opened it can read on.
    """

    pack: str
    offset: int
    size_bytes: int
    name: str
    image: int
    images: int
