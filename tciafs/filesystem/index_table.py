"""The table of the IDC's index that a mount needs: made before there is a mount, or behind it.

Where NBIA can answer meanwhile it is made behind, by a process that ends with this one, and the IDC joins
then; if it cannot be made, NBIA goes on alone, and the status says why.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.index import remove_left_overs
from tciafs.archives.idc.making import MADE_WITHIN, make_table, make_while_telling
from tciafs.archives.opening import AnyArchive
from tciafs.errors import TciafsError
from tciafs.filesystem.configs import Meant

if TYPE_CHECKING:
    from tciafs.archives.either.joining import JoiningArchive

__all__ = ["IndexTable"]

log = logging.getLogger(__name__)

MAKING = f"NBIA alone so far: a table of the index of the Imaging Data Commons is being made, {MADE_WITHIN}"


class IndexTable:
    """The table that an archive takes, if it takes one."""

    def __init__(self, meant: Meant) -> None:
        self._order = meant.table
        self._is_for_idc_alone = isinstance(meant.config, IdcConfig)
        self._said = meant.remark
        self._joining: JoiningArchive | None = None
        self._begun_at = trio.current_time()

    @property
    def is_awaited(self) -> bool:
        """Whether the archive is less than it will be in a minute."""
        return self._joining is not None and not self._joining.has_joined and not self._said

    @property
    def remark(self) -> str:
        """What the archive lacks, and why; "" is nothing."""
        if self.is_awaited:
            for_s = trio.current_time() - self._begun_at
            return MAKING if for_s < 1 else f"{MAKING}; {for_s:.0f} s so far"
        return self._said

    async def make_if_needed(self, told: Callable[[str], None]) -> None:
        """Make the table, and say so, where there is nothing to show without it.

        Raises Unusable where it cannot be made, Misuse for a release that the index does not know.
        """
        if self._order is None:
            return
        await trio.to_thread.run_sync(remove_left_overs, self._order.path.parent)
        if self._is_for_idc_alone and not self._order.is_carried_out:
            await make_while_telling(self._order, told)

    def belongs_to(self, archive: AnyArchive) -> None:
        """Take note of the archive, which may be one that waits for the table."""
        if self._order is None:
            return  # and nothing is loaded for it
        from tciafs.archives.either.joining import JoiningArchive

        if isinstance(archive, JoiningArchive):
            self._joining = archive

    async def run(self) -> None:
        """Make the table for an archive that waits for it, and have the IDC join; or say why it does not."""
        if self._joining is None or self._order is None:
            return
        self._begun_at = trio.current_time()
        log.info("a table of the index of the Imaging Data Commons is being made: %s", self._order.path)
        try:
            await make_table(self._order, behind=True)
            self._joining.join()
        except TciafsError as error:
            self._joining.give_up()
            self._said = f"NBIA alone, since {error}"
            log.warning("%s", self._said)
        else:
            took_s = trio.current_time() - self._begun_at
            log.info("the Imaging Data Commons is shown, too: its table was made in %.0f s", took_s)
