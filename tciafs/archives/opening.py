"""Which archives there are: a configuration that any process can carry, to the archive that it means.

Defined here and only here: that choice. Whoever takes an Archive knows none of them.
"""

from typing import TYPE_CHECKING, TypeAlias, Union

from tciafs.archives.http.client import Bearer
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig

if TYPE_CHECKING:
    from tciafs.archives.idc.archive import IdcArchive

__all__ = ["AnyArchive", "ArchiveConfig", "open_archive"]

ArchiveConfig: TypeAlias = NbiaConfig | IdcConfig
AnyArchive: TypeAlias = Union[NbiaArchive, "IdcArchive"]


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
        case NbiaConfig():
            return NbiaArchive(config, bearer=bearer if config.logged_in else None)
