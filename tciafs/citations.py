"""Citations of data: what lies under a path, by data set, as text, BibTeX or CSL-JSON.

A data set is what has one address where it is described, mostly a DOI. Archives list neither its authors nor
its title: these are at the DOI, and nothing is made up here. Defined here and only here: those three forms.
Pure functions.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

__all__ = ["FORMS", "DataSet", "SeriesSource", "data_sets"]

PUBLISHER = "The Cancer Imaging Archive"
ARCHIVE_DOI = "10.1007/s10278-013-9622-7"
ARCHIVE_TITLE = "The Cancer Imaging Archive (TCIA): Maintaining and Operating a Public Information Repository"
ARCHIVE_TEXT = (
    f"Clark K, Vendt B, Smith K, et al. {ARCHIVE_TITLE}. Journal of Digital Imaging 26(6), 2013, "
    f"pp. 1045-1057. https://doi.org/{ARCHIVE_DOI}"
)
DOI = re.compile(r"(?i)(?:https?://(?:dx\.)?doi\.org/|doi:)?(10\.[0-9]{4,9}/\S+)")


@dataclass(frozen=True, slots=True)
class SeriesSource:
    """Where a series comes from; an empty text is what the archive did not say."""

    collection: str
    data_uri: str
    licence_name: str
    licence_uri: str
    is_third_party: bool


@dataclass(frozen=True, slots=True)
class DataSet:
    """All series that are described at one address: their collections and licences, each once, sorted."""

    data_uri: str
    collections: tuple[str, ...]
    licences: tuple[tuple[str, str], ...]
    is_third_party: bool
    series: int

    @property
    def doi(self) -> str | None:
        """The DOI that the address is, None if it is none."""
        match = DOI.fullmatch(self.data_uri)
        return match[1] if match else None

    @property
    def title(self) -> str:
        """What can be said for a title: the collections, and that the data are results of an analysis."""
        return ", ".join(self.collections) + (" (analysis results)" if self.is_third_party else "")

    @property
    def address(self) -> str:
        """The address as a link; an empty text where there is none."""
        return f"https://doi.org/{self.doi}" if self.doi else self.data_uri

    @property
    def licence(self) -> str:
        """The licences in a line."""
        return "; ".join(f"{name} ({uri})" if uri else name for name, uri in self.licences if name or uri)


def data_sets(series: Iterable[SeriesSource]) -> list[DataSet]:
    """Return the data sets that series come from, in the order of their collections."""
    gathered: dict[tuple[str, bool, str], list[SeriesSource]] = {}
    for each in series:
        # What has no address is told apart by its collection.
        own = each.collection if not each.data_uri else ""
        gathered.setdefault((each.data_uri, each.is_third_party, own), []).append(each)
    sets = [
        DataSet(
            uri,
            tuple(sorted({each.collection for each in members})),
            tuple(sorted({(each.licence_name, each.licence_uri) for each in members})),
            is_third_party,
            len(members),
        )
        for (uri, is_third_party, _own), members in gathered.items()
    ]
    return sorted(sets, key=lambda each: (each.collections, each.is_third_party, each.data_uri))


def _as_text(sets: list[DataSet]) -> str:
    lines = []
    for each in sets:
        licence = f" Licence: {each.licence}." if each.licence else ""
        what = f"{each.title} [Data set, {each.series:,} series]"
        address = f" {each.address}." if each.address else ""
        lines.append(f"{what}. {PUBLISHER}.{address}{licence}")
    return "\n\n".join([*lines, ARCHIVE_TEXT]) + "\n"


def _as_bibtex(sets: list[DataSet]) -> str:
    entries = []
    for number, each in enumerate(sets, 1):
        fields = {
            "title": f"{{{_escaped(each.title)}}}",
            "publisher": PUBLISHER,
            "doi": each.doi or "",
            "url": each.address,
            "note": _escaped(f"Data set. {each.licence}".strip()),
        }
        entries.append(_entry("misc", f"tcia{number}", fields))
    article = {
        "title": f"{{{ARCHIVE_TITLE}}}",
        "author": "Clark, Kenneth and Vendt, Bruce and Smith, Kirk and others",
        "journal": "Journal of Digital Imaging",
        "volume": "26",
        "number": "6",
        "pages": "1045--1057",
        "year": "2013",
        "doi": ARCHIVE_DOI,
    }
    return "\n".join([*entries, _entry("article", "tcia", article)])


def _entry(kind: str, key: str, fields: Mapping[str, str]) -> str:
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{kind}{{{key},\n{lines}}}\n"


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", ""))


def _as_csl(sets: list[DataSet]) -> str:
    items: list[dict[str, object]] = []
    for number, each in enumerate(sets, 1):
        said = {"DOI": each.doi, "URL": each.address or None, "note": each.licence or None}
        items.append(
            {
                "id": f"tcia{number}",
                "type": "dataset",
                "title": each.title,
                "publisher": PUBLISHER,
                **{name: value for name, value in said.items() if value},
            }
        )
    article: dict[str, object] = {
        "id": "tcia",
        "type": "article-journal",
        "title": ARCHIVE_TITLE,
        "DOI": ARCHIVE_DOI,
        "container-title": "Journal of Digital Imaging",
        "issued": {"date-parts": [[2013]]},
    }
    return json.dumps([*items, article], indent=2) + "\n"


FORMS: Mapping[str, Callable[[list[DataSet]], str]] = {
    "text": _as_text,
    "bibtex": _as_bibtex,
    "csl-json": _as_csl,
}
"""How data sets are written, by the name of the form."""
