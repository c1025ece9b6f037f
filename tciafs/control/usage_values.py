"""What commands and daemon say to each other of what was read; see `values`."""

import msgspec

__all__ = ["ListUsed", "UsedPage", "UsedSource"]


class ListUsed(msgspec.Struct, frozen=True):
    """`POST /v1/used`: list from where series were read on `since` (ISO 8601) or later, from a place on."""

    since: str
    place: int = 0


class UsedSource(msgspec.Struct, frozen=True):
    """Where so many series come from that were read; an empty text is what the archive did not say."""

    collection: str
    data_uri: str
    licence_name: str
    licence_uri: str
    third_party: str
    series: int


class UsedPage(msgspec.Struct, frozen=True):
    """Some sources; `more`: others follow."""

    sources: tuple[UsedSource, ...]
    more: bool
