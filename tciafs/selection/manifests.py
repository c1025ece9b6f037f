"""Manifests: files that name series, in the forms in which they are found -> Series Instance UIDs.

Read are the `.tcia` manifests of the TCIA portal, with what hands have done to them since (a heading in the
list, UIDs before it, commas behind them, no end of line at the end); tables, CSV or TSV, with a column of
series UIDs; and `.s5cmd` lists whose target folders name the series. Whatever the form, what is left is the
UIDs in their order, each once, and what could not be read. Defined here and only here: those forms. Reads one
file; knows nothing of archives.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tciafs.errors import Misuse

__all__ = ["Manifest", "is_uid", "manifest_text", "read_manifest", "uids_in"]

LARGEST_BYTES = 256 << 20
"""Half a million series take 35 MB as a manifest, and some 150 MB as a table of the retriever."""

LONGEST_UID = 64
UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
UID_IN_TARGET = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+){3,}(?![0-9.])")

UID_HEADINGS = frozenset({"seriesinstanceuid", "seriesuid", "seriesid", "seriesinstance"})
"""The heading of a column of series UIDs, in lower case and without what is no letter."""

DELIMITERS = "\t,;"
QUOTES = "\"' \t\ufeff"
LIST_HEADING = "listofseriestodownload"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The series that a file names: `uids` in its order, each once; `odd_lines` are those nobody can read."""

    name: str
    uids: tuple[str, ...]
    odd_lines: int = 0


def manifest_text(uids: Iterable[str]) -> str:
    """Return a manifest of series as the portal writes one, and the retriever reads it."""
    return "manifestVersion=3.0\nListOfSeriesToDownload=\n" + "".join(f"{uid}\n" for uid in uids)


def read_manifest(path: Path) -> Manifest:
    """Return what a manifest names. Raises Misuse where it cannot be read, or names no series."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise Misuse(f"the manifest {path} is larger than {LARGEST_BYTES >> 20} MB")
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise Misuse(f"the manifest {path} cannot be read: {error.strerror}") from error
    try:
        found, odd_lines = uids_in(text)
    except csv.Error as error:
        raise Misuse(f"the manifest {path} cannot be read as a table: {error}") from error
    if not found:
        raise Misuse(f"the manifest {path} names no series{_reason(text)}")
    return Manifest(path.stem, found, odd_lines)


def uids_in(text: str) -> tuple[tuple[str, ...], int]:
    """Return the series UIDs in the text of a manifest, in order, each once, and the number of odd lines.

    Raises csv.Error.
    """
    lines = text.splitlines()
    table = _table(lines)
    words = _column(*table) if table else _words(lines)
    uids: dict[str, None] = {}
    odd_lines = 0
    for word in words:
        if is_uid(word):
            uids[word] = None
        else:
            odd_lines += 1
    return tuple(uids), odd_lines


def is_uid(word: str) -> bool:
    """Return whether a word may be a UID; see DICOM PS3.5 section 9.1, leading zeros forgiven."""
    return len(word) <= LONGEST_UID and UID.fullmatch(word) is not None


def _decoded(content: bytes) -> str:
    """Return the text of a file: UTF-16 where it says so, as Windows programs write it, else UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="replace")


# Tables


def _table(lines: Sequence[str]) -> tuple[Sequence[str], str, int] | None:
    """Return the lines of a table from its heading on, its delimiter and its column; None: it is none."""
    for number, line in enumerate(lines):
        if not line.strip() or line.startswith("#"):
            continue
        for delimiter in DELIMITERS:
            headings = [_heading(field) for field in next(csv.reader([line], delimiter=delimiter), [])]
            for column, heading in enumerate(headings):
                if heading in UID_HEADINGS and len(headings) > 1:
                    return lines[number:], delimiter, column
        return None
    return None


def _heading(field: str) -> str:
    return re.sub("[^a-z]", "", field.lower())


def _column(lines: Sequence[str], delimiter: str, column: int) -> Iterator[str]:
    """Yield what stands in a column. A line of the retriever's metadata.csv may have too many fields."""
    for number, row in enumerate(csv.reader(lines, delimiter=delimiter)):
        if number and any(field.strip() for field in row):
            yield row[column].strip(QUOTES) if len(row) > column else ""


# Lists


def _words(lines: Iterable[str]) -> Iterator[str]:
    """Yield what stands for a series in each line that may name one."""
    for line in lines:
        word = line.strip(QUOTES)
        if not word or word.startswith("#") or _heading(word) in UID_HEADINGS:
            continue
        if word.partition(" ")[0] in ("cp", "sync"):
            yield _uid_of_target(word)
        elif "=" in word:  # a property; some write the first UIDs behind the heading of the list
            name, _, value = word.partition("=")
            if _heading(name) == LIST_HEADING and value.strip():
                yield _first_field(value)
        else:
            yield _first_field(word)


def _first_field(line: str) -> str:
    return line.partition(",")[0].strip(QUOTES)


def _uid_of_target(command: str) -> str:
    """Return the last UID in the target folder of an s5cmd line; its source has numbers of IDC's own."""
    found = UID_IN_TARGET.findall(command.rpartition(" ")[2])
    return found[-1] if found else ""


def _reason(text: str) -> str:
    """Return why a manifest may name no series, as the rest of a sentence."""
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype", "<html")):
        return ": it is a web page"
    if "<tciacollection" in text[:4096].lower():
        return ": it is a container that points to another manifest; download that one"
    if "s3://" in text[:4096]:
        return ": its lines tell series by numbers of the Imaging Data Commons, and not by their UIDs"
    if "manifestversion=" in text.lower():
        return "; a manifest of version 1 or 2 only refers to a basket on the server"
    return ""
