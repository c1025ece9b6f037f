"""What commands and daemon say to each other of what was read; see `values`."""

from dataclasses import dataclass

__all__ = ["ListUsed", "UsedPage", "UsedSource"]


@dataclass(frozen=True, slots=True)
class ListUsed:
    """`POST /v1/used`: list from where series were read on `since` (ISO 8601) or later, from a place on."""

    since: str
    place: int = 0


@dataclass(frozen=True, slots=True)
class UsedSource:
    """Where so many series come from that were read; an empty text is what the archive did not say."""

    collection: str
    data_uri: str
    licence_name: str
    licence_uri: str
    third_party: str
    series: int


@dataclass(frozen=True, slots=True)
class UsedPage:
    """Some sources; `more`: others follow."""

    sources: tuple[UsedSource, ...]
    more: bool
