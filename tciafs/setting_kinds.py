"""Kinds of settings: how a text from a command line, a variable or a file is read.

Each is a function that gives a value, and raises ValueError with what was expected. Defined here and only
here: what a size, a time, a day or a list looks like. Pure functions; only a home folder is looked up.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

__all__ = [
    "Days",
    "choice",
    "joined_names",
    "parse_count",
    "parse_day",
    "parse_days",
    "parse_duration",
    "parse_flag",
    "parse_id",
    "parse_names",
    "parse_octal",
    "parse_path",
    "parse_paths",
    "parse_positive",
    "parse_size",
    "parse_timeout",
    "parse_word",
]

Days: TypeAlias = tuple[dt.date | None, dt.date | None]
"""The first day and the last; None is open."""

ITEM = re.compile(r"(?:\\.|[^:])+", re.DOTALL)

SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DURATION_UNITS = {"": 1, "S": 1, "M": 60, "H": 3600, "D": 86_400, "W": 7 * 86_400}
NO_ID = 2**32 - 1
"""What the kernel takes for no user and no group; see chown(2)."""


def parse_size(text: str) -> int:
    """Return bytes: "50G", "50 GiB", "512M", "1000". Units are powers of 1024."""
    return _with_unit(re.sub(r"(?i)(?:(?<=[KMGT])i)?B$", "", text.strip()), SIZE_UNITS, "a size such as 50G")


def parse_duration(text: str) -> int:
    """Return seconds: "1d", "12h", "30s", "90"."""
    return _with_unit(text.strip(), DURATION_UNITS, "a time such as 1d, 12h or 30s")


def parse_timeout(text: str) -> int:
    """Return seconds, at least 1."""
    if (seconds := parse_duration(text)) < 1:
        raise ValueError("expected a time of at least 1s")
    return seconds


def _with_unit(text: str, units: Mapping[str, int], expected: str) -> int:
    from fractions import Fraction

    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]?)", text)
    if match is None or match[2].upper() not in units:
        raise ValueError(f"expected {expected}")
    return int(Fraction(match[1]) * units[match[2].upper()])


def parse_count(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise ValueError("expected a whole number")
    return int(text)


def parse_id(text: str) -> int:
    """Return the number of a user or a group."""
    if (number := parse_count(text)) >= NO_ID:
        raise ValueError(f"expected a number below {NO_ID}")
    return number


def parse_positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if (count := parse_count(text)) < 1:
        raise ValueError("expected a whole number of at least 1")
    return count


def parse_flag(text: str) -> bool:
    """Return what yes or no says."""
    words = {
        "true": True,
        "yes": True,
        "1": True,
        "false": False,
        "no": False,
        "0": False,
    }
    if text.strip().lower() not in words:
        raise ValueError("expected true or false")
    return words[text.strip().lower()]


def parse_octal(text: str) -> int:
    """Return a mask of permissions."""
    if not re.fullmatch(r"0?[0-7]{1,3}", text.strip()):
        raise ValueError("expected an octal mask such as 022")
    return int(text, 8)


def parse_word(text: str) -> str:
    """Return a text of something that can be seen."""
    if not text.strip() or not text.isprintable():
        raise ValueError("expected a word")
    return text.strip()


def parse_names(text: str) -> tuple[str, ...]:
    """Return words that have colons between them; one in a word has a backslash before it."""
    return tuple(filter(None, (_unescaped(part).strip() for part in ITEM.findall(text))))


def joined_names(names: Iterable[str]) -> str:
    """Return the text that `parse_names` reads as these words."""
    return ":".join(re.sub(r"([\\:])", r"\\\1", name) for name in names)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\\:])", r"\1", text)


def parse_paths(text: str) -> tuple[Path, ...]:
    """Return absolute paths that have colons between them."""
    return tuple(map(parse_path, parse_names(text)))


def parse_day(text: str) -> dt.date:
    """Return a day: "2026-01-31"."""
    try:
        return dt.date.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("expected a day such as 2026-01-31") from None


def parse_days(text: str) -> Days:
    """Return the first day and the last: "2020-01-01..2020-12-31", one side left out, or a single day."""
    first, dots, last = text.partition("..")
    if not dots:
        last = first
    if not (first.strip() or last.strip()):
        raise ValueError("expected days such as 2020-01-01..2020-12-31")
    days = tuple(parse_day(each) if each.strip() else None for each in (first, last))
    if None not in days and days[0] > days[1]:  # type: ignore[operator]
        raise ValueError("expected the first day before the last")
    return (days[0], days[1])


def parse_path(text: str) -> Path:
    """Return an absolute path."""
    if not text or "\0" in text:
        raise ValueError("expected a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("expected a path in the home folder of a user that exists") from None


def choice(*choices: str) -> dict[str, Any]:
    """Return how one of some words is declared and read."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return {"parse": parse, "choices": choices, "metavar": "|".join(choices)}
