"""Which archives there are: a configuration that any process can carry, to the archive that it means.

Defined here and only here: that choice. Whoever takes an Archive knows none of them.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import msgspec

from tciafs.archives.either.config import EitherConfig
from tciafs.archives.http.client import Bearer
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.nbia.archive import DEFAULT_URL, NbiaArchive, NbiaConfig
from tciafs.errors import Unusable

if TYPE_CHECKING:
    from tciafs.archives.either.archive import EitherArchive
    from tciafs.archives.either.joining import JoiningArchive
    from tciafs.archives.idc.archive import IdcArchive

__all__ = ["AnyArchive", "ArchiveConfig", "archives_meant", "asking_once", "lacks_index", "open_archive"]

log = logging.getLogger(__name__)

ArchiveConfig: TypeAlias = NbiaConfig | IdcConfig | EitherConfig
AnyArchive: TypeAlias = Union[NbiaArchive, "IdcArchive", "EitherArchive", "JoiningArchive"]


def archives_meant(archive: str, url: str, idc_index: Path | None) -> tuple[str, ...]:
    """Return what a choice of archive comes to on this machine: "idc", "nbia", both, or the sample.

    "auto" takes in the IDC where its index is, `idc_index` or the installed one (None), which belongs to
    TCIA's own NBIA server and no other: what a hospital has, or a sample, is never mixed with it unasked.
    """
    if archive != "auto":
        return (archive,)
    from tciafs.archives.idc.index import is_installed

    has_idc = idc_index is not None or (is_tcias_own(url) and is_installed())
    return ("idc", "nbia") if has_idc else ("nbia",)


def is_tcias_own(url: str) -> bool:
    """Return whether an address is that of TCIA's own NBIA server."""
    return url.rstrip("/") == DEFAULT_URL


def lacks_index(archive: str, url: str, idc_index: Path | None) -> bool:
    """Return whether a choice of archive would take in the IDC, if only its index were installed."""
    is_wanted = archive == "auto" and is_tcias_own(url)
    return is_wanted and archives_meant(archive, url, idc_index) == ("nbia",)


def open_archive(config: ArchiveConfig, *, bearer: Bearer | None = None) -> AnyArchive:
    """Return the archive; nothing is sent. `bearer` gives the token of a user, for an archive that has users.

    Of both the IDC joins as soon as its table is there. Raises Misuse for an address that cannot work,
    Unusable where the table of the IDC alone cannot be read.
    """
    match config:
        case IdcConfig():
            from tciafs.archives.idc.archive import (
                IdcArchive,  # 20 ms that no other worker should take to start
            )

            return IdcArchive(config)
        case EitherConfig(nbia=nbia):
            return _both(config, NbiaArchive(nbia, bearer=bearer if nbia.logged_in else None))
        case NbiaConfig():
            return NbiaArchive(config, bearer=bearer if config.logged_in else None)


def _both(config: EitherConfig, nbia: NbiaArchive) -> "EitherArchive | JoiningArchive":
    from tciafs.archives.either.archive import EitherArchive
    from tciafs.archives.either.joining import JoiningArchive
    from tciafs.archives.idc.archive import IdcArchive

    if Path(config.idc.table).exists():
        try:
            return EitherArchive(config, IdcArchive.beside_another(config.idc), nbia)
        except Unusable as error:
            log.warning("%s", error)
    return JoiningArchive(config, nbia)


def asking_once(config: ArchiveConfig) -> ArchiveConfig:
    """Return a configuration of the same archive that repeats nothing, and waits for no table."""
    if isinstance(config, EitherConfig) and not Path(config.idc.table).exists():
        config = config.nbia
    if isinstance(config, EitherConfig):
        idc, nbia = (msgspec.structs.replace(each, retries=0) for each in (config.idc, config.nbia))
        return msgspec.structs.replace(config, idc=idc, nbia=nbia)
    return msgspec.structs.replace(config, retries=0)
