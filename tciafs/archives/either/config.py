"""How to reach the Imaging Data Commons and NBIA as one archive."""

import msgspec

from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.nbia.archive import NbiaConfig

__all__ = ["EitherConfig"]


class EitherConfig(msgspec.Struct, frozen=True, tag=True):
    """Both configurations, and the file in which it is kept what NBIA has beyond the IDC."""

    idc: IdcConfig
    nbia: NbiaConfig
    beyond: str

    @property
    def url(self) -> str:
        """Both addresses."""
        return f"{self.idc.url} and {self.nbia.url}"
