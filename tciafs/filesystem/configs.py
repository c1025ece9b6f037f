"""What the settings of a mount mean to each room.

Pure functions, but for the budgets, which read a file, and the index of IDC, whose files are looked at.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import platformdirs

from tciafs.archives.either.config import EitherConfig
from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.index import INSTALL, installed_index
from tciafs.archives.idc.making import TableOrder, table_order
from tciafs.archives.nbia.archive import Api, NbiaConfig
from tciafs.archives.nbia.login import Session
from tciafs.archives.opening import ArchiveConfig, archives_meant, lacks_index
from tciafs.catalogue.catalogue import CatalogueConfig
from tciafs.errors import Misuse, Unusable
from tciafs.filesystem.budgets import Budgets
from tciafs.filesystem.operations import Presentation
from tciafs.filesystem.walk_ahead import AheadConfig
from tciafs.settings import Settings
from tciafs.store.store import StoreConfig

__all__ = [
    "Meant",
    "address_of",
    "ahead_config",
    "archive_meant",
    "budgets_of",
    "catalogue_config",
    "fuse_options",
    "http_limits",
    "presentation_of",
    "store_config",
]

RETRIES_OF_EITHER = 2
NBIA_ALONE = f"NBIA alone, since the index of the Imaging Data Commons is not installed; to add it: {INSTALL}"
AHEAD_SHARE = 8
"""What is fetched ahead of one reader takes an eighth of the cache at most."""


def ahead_config(settings: Settings) -> AheadConfig:
    """Return how far to fetch ahead of who reads in order."""
    return AheadConfig(settings.read_ahead, settings.cache_size // AHEAD_SHARE)


def cache_folder(settings: Settings) -> Path:
    """Return the folder of this archive's series and listings."""
    folder = settings.cache_dir or platformdirs.user_cache_path("tciafs")
    # The sample's listings and series must never be taken for those of the real archive.
    return folder / "sample" if settings.archive == "sample" else folder


def budgets_of(settings: Settings) -> Budgets:
    """Return the budgets, with what was spent of them today; blocking."""
    kept = cache_folder(settings) / "received-today.json"
    return Budgets(settings.daily_budget, settings.process_budget, kept)


def http_limits(settings: Settings) -> HttpLimits:
    """Return how long an archive is waited for."""
    return HttpLimits(
        connect_timeout_s=settings.connect_timeout,
        stall_timeout_s=settings.stall_timeout,
        listing_timeout_s=settings.listing_timeout,
    )


def address_of(settings: Settings) -> str:
    """Return where the archive of the settings is."""
    return settings.idc_url if settings.archive == "idc" else settings.url


@dataclass(frozen=True, slots=True)
class Meant:
    """How to reach an archive; the table that it takes, None if none; and what is lacking, and why."""

    config: ArchiveConfig
    table: TableOrder | None = None
    remark: str = ""


def archive_meant(settings: Settings, url: str, session: Session | None) -> Meant:
    """Return how to reach the archive at `url`, as a guest or in a session; blocking.

    Raises Unusable where the index of IDC is not there, Misuse where settings contradict each other.
    """
    if settings.idc_version is not None and settings.archive in ("auto", "nbia"):
        raise Misuse("--idc-version takes --archive idc: NBIA has no earlier releases")
    meant = archives_meant(settings.archive, url, settings.idc_index)
    if "idc" not in meant:
        lacking = lacks_index(settings.archive, url, settings.idc_index)
        return Meant(_nbia_config(settings, url, session), remark=NBIA_ALONE if lacking else "")
    if "nbia" not in meant:
        order = _table(settings)
        return Meant(_idc_config(settings, order), order)
    return _both_meant(settings, url, session)


def _both_meant(settings: Settings, url: str, session: Session | None) -> Meant:
    """Return how to reach both; NBIA alone where an index that nobody named cannot be used."""
    # Each is repeated less, since there is the other.
    patient = replace(settings, retries=min(settings.retries, RETRIES_OF_EITHER))
    nbia = _nbia_config(patient, url, session)
    try:
        order = _table(settings)
    except Unusable as error:
        if settings.idc_index is not None:
            raise
        return Meant(_nbia_config(settings, url, session), remark=f"NBIA alone, since {error}")
    beyond = cache_folder(settings) / "idc" / f"beyond-{_mark(_whose(nbia, session))}.sqlite"
    return Meant(EitherConfig(_idc_config(patient, order), nbia, str(beyond)), order)


def _idc_config(settings: Settings, order: TableOrder) -> IdcConfig:
    return IdcConfig(str(order.path), settings.idc_url, settings.retries, http_limits(settings))


def _nbia_config(settings: Settings, url: str, session: Session | None) -> NbiaConfig:
    return NbiaConfig(
        url=url,
        api=None if settings.api == "auto" else cast(Api, settings.api),
        retries=settings.retries,
        limits=http_limits(settings),
        logged_in=session is not None,
    )


def _table(settings: Settings) -> TableOrder:
    index, folder = settings.idc_index or installed_index(), cache_folder(settings) / "idc"
    return table_order(index, folder, everything=settings.idc_all, release=settings.idc_version)


def store_config(settings: Settings) -> StoreConfig:
    """Return where series are kept, and how many."""
    return StoreConfig(
        folder=cache_folder(settings),
        limit_bytes=settings.cache_size,
        parallel=settings.downloads,
        # Longer than the archive's own patience, so that a reader hears the cause and not the symptom.
        patience_s=1.5 * settings.stall_timeout,
        offline=settings.offline,
    )


def catalogue_config(settings: Settings, archive: ArchiveConfig, session: Session | None) -> CatalogueConfig:
    """Return where listings are kept, and how long they are believed."""
    # Series are the same wherever they come from, since their UIDs are; listings are one server's, and
    # what one user may see of it.
    whose = settings.archive if settings.archive == "sample" else _whose(archive, session)
    folder = cache_folder(settings) / "listings" / _mark(whose)
    return CatalogueConfig(folder, settings.listing_ttl, settings.offline)


def _whose(archive: ArchiveConfig, session: Session | None) -> str:
    """Return what two archives, or two users of one, that list other things differ in."""
    whose = archive.url.rstrip("/")
    if not isinstance(archive, NbiaConfig):
        idc = archive if isinstance(archive, IdcConfig) else archive.idc
        whose += f"\n{Path(idc.table).name}"  # another release of the index lists other things
    return whose if session is None else f"{whose}\n{session.user}"


def _mark(whose: str) -> str:
    return hashlib.blake2b(whose.encode(), digest_size=8).hexdigest()


def presentation_of(settings: Settings) -> Presentation:
    """Return what files look like."""
    uid = os.getuid() if settings.uid is None else settings.uid
    gid = os.getgid() if settings.gid is None else settings.gid
    return Presentation(uid, gid, settings.umask)


def fuse_options(settings: Settings, url: str) -> set[str]:
    """Return the options of the mount; see mount.fuse3(8)."""
    # Without auto_unmount on purpose: after a crash the folder must not look empty, since a mirroring
    # job would then delete its mirror. It gives ENOTCONN, and the next mount clears it.
    host = (urlsplit(url).hostname or "archive").replace(",", "_")
    options = {"ro", "nodev", "nosuid", "noatime", "default_permissions"}
    options |= {f"fsname=tciafs:{host}", "subtype=tciafs"}
    return options | ({"allow_other"} if settings.allow_other else set())
