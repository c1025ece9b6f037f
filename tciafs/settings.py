"""Every setting, declared once: name, kind, default, help. Options, variables and files follow from it.

Where the texts come from that become settings is known to `setting_sources`. Defined here and only here:
what can be set. Does no I/O.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tciafs.setting_kinds import (
    Days,
    choice,
    parse_count,
    parse_day,
    parse_days,
    parse_duration,
    parse_flag,
    parse_id,
    parse_names,
    parse_octal,
    parse_path,
    parse_paths,
    parse_positive,
    parse_size,
    parse_timeout,
    parse_word,
)

__all__ = ["LOG_LEVELS", "Declaration", "Settings", "declarations"]

T = TypeVar("T")

LOG_LEVELS = ("error", "warning", "info", "debug")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting: `parse` reads a text, `metavar` and `choices` tell a user what to write.

    A list is written with colons between its items, or on the command line by giving the option again.
    """

    name: str
    help: str
    default_text: str
    metavar: str
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()
    is_flag: bool = False
    is_list: bool = False

    @property
    def option(self) -> str:
        """The option on the command line, for example --cache-size."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, for example TCIAFS_CACHE_SIZE."""
        return "TCIAFS_" + self.name.upper()


def _setting(
    default: str,
    help: str,
    metavar: str,
    parse: Callable[[str], T],
    choices: tuple[str, ...] = (),
    is_list: bool = False,
) -> T:
    """Declare a setting: its default and help as the user sees them, and how a text is read."""
    metadata = {
        "default": default,
        "help": help,
        "metavar": metavar,
        "parse": parse,
        "choices": choices,
        "is_list": is_list,
    }
    value: T = field(
        default_factory=lambda: parse(default) if default or is_list else _default(metavar),
        metadata=metadata,
    )
    return value


def _list(help: str, metavar: str) -> tuple[str, ...]:
    return _setting("", help, metavar, parse_names, is_list=True)


def _default(metavar: str) -> Any:
    """Return what a setting without a default is: nothing, or no."""
    return False if metavar == "" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one mount. Sizes are bytes, times seconds."""

    archive: str = _setting(
        "auto",
        "Which archive: TCIA's NBIA server and the Imaging Data Commons (auto; NBIA alone without an index "
        "of the other), one of them, or the sample.",
        **choice("auto", "nbia", "idc", "sample"),
    )
    url: str = _setting(
        "https://nbia.cancerimagingarchive.net/nbia-api/services",
        "Address of the NBIA services; the API version is appended.",
        "URL",
        str,
    )
    api: str = _setting("auto", "API version; auto asks the server.", **choice("auto", "v4", "v1"))
    idc_url: str = _setting(
        "https://s3.us-east-1.amazonaws.com",
        "Address of the buckets of the Imaging Data Commons.",
        "URL",
        str,
    )
    idc_index: Path | None = _setting(
        "",
        "Folder with the index of the Imaging Data Commons; default: the installed package idc-index-data.",
        "FOLDER",
        parse_path,
    )
    idc_all: bool = _setting(
        "", "Show also what others than TCIA have published in the Imaging Data Commons.", "", parse_flag
    )
    idc_version: int | None = _setting(
        "",
        "An earlier release of the Imaging Data Commons; default: that of the index.",
        "N",
        parse_positive,
    )
    user: str | None = _setting(
        "", "Whose login to use; default: who is logged in (tciafs login), else a guest.", "NAME", parse_word
    )
    password_file: Path | None = _setting(
        "", "File with the password of --user, for servers; nobody else may read it.", "FILE", parse_path
    )
    agree_to_policy: bool = _setting(
        "", "Agree to TCIA's data usage policy without being asked, for services.", "", parse_flag
    )
    cache_dir: Path | None = _setting(
        "",
        "Folder for listings and series, on a local disk, one a mount; default: the user's cache folder.",
        "FOLDER",
        parse_path,
    )
    cache_size: int = _setting("50G", "Most bytes of series to keep on disk.", "SIZE", parse_size)
    naming: str = _setting(
        "descriptive",
        "Folder names as the retriever writes them: in words, or UIDs.",
        **choice("descriptive", "classic"),
    )
    downloads: int = _setting("3", "Series fetched at the same time.", "N", parse_positive)
    read_ahead: int = _setting(
        "6",
        "Series to fetch ahead of who reads them in the order of their folder; 0: none.",
        "N",
        parse_count,
    )
    retries: int = _setting("4", "How often a failed series or listing is tried again.", "N", parse_count)
    verify: str = _setting(
        "auto",
        "When a series is shown: auto image by image as each one is checked, strict once all of it agrees.",
        **choice("auto", "strict"),
    )
    listing: str = _setting(
        "auto",
        "Listing a series that is not known: auto fetches it when somebody looks and gives "
        "provisional names to walkers, exact always fetches, names never does.",
        **choice("auto", "names", "exact"),
    )
    usage: str = _setting(
        "kept",
        "Whether note is kept in the cache folder of which series are read, for tciafs cite --used.",
        **choice("kept", "off"),
    )
    crawlers: tuple[str, ...] = _setting(
        "updatedb*:mlocate:tracker-*:localsearch-*:baloo_file*:recoll*:tumblerd:*thumbnail*:totem-video-thu*:"
        "clamscan:clamd:clamonacc:aide:rkhunter:restic:borg:duplicity",
        "Programs that never cause a download, whatever they read; patterns with colons between them.",
        "NAMES",
        parse_names,
    )
    daily_budget: int | None = _setting(
        "", "Most bytes to fetch from one midnight UTC to the next; default: no limit.", "SIZE", parse_size
    )
    process_budget: int | None = _setting(
        "", "Most bytes that one process may cause to be fetched; default: no limit.", "SIZE", parse_size
    )
    listing_ttl: int = _setting("1d", "How long a listing is believed.", "TIME", parse_duration)
    offline: bool = _setting("", "Never ask the archive; show and read what is cached.", "", parse_flag)
    connect_timeout: int = _setting("10s", "Longest wait for a connection.", "TIME", parse_timeout)
    stall_timeout: int = _setting(
        "60s", "Longest silence of the server in the middle of an answer.", "TIME", parse_timeout
    )
    listing_timeout: int = _setting(
        "120s", "Longest wait for a whole listing, all tries together.", "TIME", parse_timeout
    )
    collection: tuple[str, ...] = _list("Show only this collection; may be repeated.", "NAME")
    patient: tuple[str, ...] = _list("Show only this patient; may be repeated.", "ID")
    modality: tuple[str, ...] = _list("Show only series of this modality; may be repeated.", "CT")
    body_part: tuple[str, ...] = _list("Show only series of this body part; may be repeated.", "CHEST")
    manufacturer: tuple[str, ...] = _list("Show only series of this manufacturer; may be repeated.", "NAME")
    model: tuple[str, ...] = _list("Show only series of this model of a scanner; may be repeated.", "NAME")
    study_date: Days | None = _setting(
        "", "Show only studies of these days; one side may be left out.", "FROM..TO", parse_days
    )
    released_since: dt.date | None = _setting(
        "", "Show only series that were released on this day or later.", "DAY", parse_day
    )
    min_images: int | None = _setting("", "Show only series of so many images or more.", "N", parse_count)
    max_images: int | None = _setting("", "Show only series of so many images or fewer.", "N", parse_count)
    max_size: int | None = _setting("", "Show only series that are not larger.", "SIZE", parse_size)
    licence: str = _setting(
        "any",
        "Show only series with such a licence; commercial: one that is known and allows commercial use.",
        **choice("any", "commercial"),
    )
    manifest: tuple[Path, ...] = _setting(
        "",
        "Show only the series that this file names: a .tcia manifest, a table with a column of series UIDs, "
        "or an .s5cmd list; may be repeated.",
        "FILE",
        parse_paths,
        is_list=True,
    )
    cart: tuple[str, ...] = _list("Show only the series of this shared cart; may be repeated.", "NAME")
    allow_other: bool = _setting("", "Let other users read the mount.", "", parse_flag)
    uid: int | None = _setting("", "Owner of all files; default: you.", "N", parse_id)
    gid: int | None = _setting("", "Group of all files; default: yours.", "N", parse_id)
    umask: int = _setting("022", "Permissions to take from 0444 and 0555.", "MASK", parse_octal)
    log_file: Path | None = _setting(
        "",
        "Where to log; default: in the background a file in the user's log folder, else standard error.",
        "FILE",
        parse_path,
    )
    log_level: str = _setting("warning", "How much is logged.", **choice(*LOG_LEVELS))
    log_file_level: str | None = _setting(
        "", "How much is logged into the log file; default: as --log-level says.", **choice(*LOG_LEVELS)
    )
    log_size: int = _setting(
        "10M", "Size of a log file that is set aside for a new one; 0: none ever is.", "SIZE", parse_size
    )
    log_count: int = _setting("5", "How many log files that were set aside are kept.", "N", parse_count)


def declarations() -> Iterator[Declaration]:
    """Yield all settings in the order of their declaration."""
    for each in dataclasses.fields(Settings):
        meta = each.metadata
        yield Declaration(
            each.name,
            meta["help"],
            meta["default"],
            meta["metavar"],
            meta["parse"],
            meta["choices"],
            is_flag=meta["metavar"] == "",
            is_list=meta["is_list"],
        )
