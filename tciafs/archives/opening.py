"""Which archives there are: a configuration that any process can carry, to the archive that it means.

Defined here and only here: that choice. Whoever takes an Archive knows none of them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import msgspec

from tciafs.archives.either.config import EitherConfig
from tciafs.archives.http.client import Bearer
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.nbia.archive import DEFAULT_URL, NbiaArchive, NbiaConfig

if TYPE_CHECKING:
    from tciafs.archives.either.archive import EitherArchive
    from tciafs.archives.idc.archive import IdcArchive

__all__ = ["AnyArchive", "ArchiveConfig", "archives_meant", "asking_once", "open_archive"]

ArchiveConfig: TypeAlias = NbiaConfig | IdcConfig | EitherConfig
AnyArchive: TypeAlias = Union[NbiaArchive, "IdcArchive", "EitherArchive"]


def archives_meant(archive: str, url: str, idc_index: Path | None) -> tuple[str, ...]:
    """Return what a choice of archive comes to on this machine: "idc", "nbia", both, or the sample.

    "auto" takes in the IDC where its index is, `idc_index` or the installed one (None), which belongs to
    TCIA's own NBIA server and no other. Raises Misuse.
    """
    if archive != "auto":
        return (archive,)
    from tciafs.archives.idc.index import is_installed

    has_idc = idc_index is not None or (url.rstrip("/") == DEFAULT_URL and is_installed())
    return ("idc", "nbia") if has_idc else ("nbia",)


def open_archive(config: ArchiveConfig, *, bearer: Bearer | None = None) -> AnyArchive:
    """Return the archive; nothing is sent. `bearer` gives the token of a user, for an archive that has users.

    Raises Misuse for an address that cannot work, Unusable where the table of an index cannot be read.
    """
    match config:
        case IdcConfig():
            from tciafs.archives.idc.archive import (
                IdcArchive,  # 20 ms that no other worker should take to start
            )

            return IdcArchive(config)
        case EitherConfig(idc, nbia):
            from tciafs.archives.either.archive import EitherArchive
            from tciafs.archives.idc.archive import IdcArchive

            theirs = NbiaArchive(nbia, bearer=bearer if nbia.logged_in else None)
            return EitherArchive(config, IdcArchive(idc), theirs)
        case NbiaConfig():
            return NbiaArchive(config, bearer=bearer if config.logged_in else None)


def asking_once(config: ArchiveConfig) -> ArchiveConfig:
    """Return a configuration of the same archive that repeats nothing."""
    if isinstance(config, EitherConfig):
        idc, nbia = (msgspec.structs.replace(each, retries=0) for each in (config.idc, config.nbia))
        return msgspec.structs.replace(config, idc=idc, nbia=nbia)
    return msgspec.structs.replace(config, retries=0)
