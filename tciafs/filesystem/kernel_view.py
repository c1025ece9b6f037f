"""Keeps what the kernel has cached in step with listings that changed: names gone, come or moved.

The catalogue notes a change in passing; a task of the mount works out which entries are stale, and has the
kernel forget them from another thread. Not from a handler, and not from the loop: the kernel takes the
folder's lock for it, which it holds while it waits for our own answer. What is not told here the kernel asks
for again when the time it was given has passed.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from tciafs.filesystem.folders import Folder, Level, Whose, inode_of, made, unix_day
from tciafs.model import Series
from tciafs.naming import Naming

if TYPE_CHECKING:
    from tciafs.filesystem.images import Images
    from tciafs.filesystem.tree import Tree

__all__ = ["KernelView"]

log = logging.getLogger(__name__)

ForgetEntry = Callable[[int, str], None]
ForgetAttributes = Callable[[int], None]


@dataclass(slots=True)
class _Stale:
    """What the kernel should ask for again: names in folders (by inode), days, images of a series."""

    entries: list[tuple[int, str]] = field(default_factory=list)
    dated: list[tuple[int, int | None]] = field(default_factory=list)
    revised: list[tuple[int, Series]] = field(default_factory=list)


class KernelView:
    """Tells the kernel of changes. `forget_entry` and `forget_attributes` may block, and be told in vain."""

    def __init__(
        self,
        tree: "Tree",
        images: "Images",
        naming: Naming,
        forget_entry: ForgetEntry,
        forget_attributes: ForgetAttributes,
    ) -> None:
        self._tree = tree
        self._images = images
        self._naming = naming
        self._forget_entry = forget_entry
        self._forget_attributes = forget_attributes
        self._noted, self._notes = trio.open_memory_channel[tuple[Level, Whose, list[Any], list[Any]]](10**9)

    def note(self, question: tuple[str, ...], before: Sequence[Any], after: Sequence[Any]) -> None:
        """Note an answer that differs from the one before; see `catalogue.Replaced`. Never waits."""
        for level, whose, old, new in _by_folder(question, before, after):
            inode = inode_of(level, whose)
            self._tree.folders.drop(inode)
            if self._tree.knows(inode):
                self._noted.send_nowait((level, whose, old, new))

    async def run(self) -> None:
        """Tell the kernel of what is noted, for ever."""
        while True:
            await self.tell_next()

    async def tell_next(self) -> None:
        """Tell the kernel of the next folder that is noted, once there is one."""
        level, whose, old, new = await self._notes.receive()
        stale = await trio.to_thread.run_sync(_stale, level, whose, old, new, self._naming)
        for inode, series in stale.revised:
            stale.entries += ((inode, name) for name in self._images.names_once_shown(series))
        for changed, day in stale.dated:
            self._tree.date(changed, day)
        log.info("%s: %d names have changed", "/".join(whose) or "collections", len(stale.entries))
        await trio.to_thread.run_sync(self._tell, stale, abandon_on_cancel=True)

    def _tell(self, stale: _Stale) -> None:
        for inode, name in stale.entries:
            self._forget_entry(inode, name)
        for inode, _day in stale.dated:
            self._forget_attributes(inode)


def _stale(level: Level, whose: Whose, old: list[Any], new: list[Any], naming: Naming) -> _Stale:
    """Return what of a folder is not as it was; in a thread, since a folder can be long."""
    stale, inode = _Stale(), inode_of(level, whose)
    was, now = (_by_name(made(level, whose, records, naming)) for records in (old, new))
    for name in sorted(was.keys() | now.keys()):
        if name not in was or name not in now or was[name][0] != now[name][0]:
            stale.entries.append((inode, name))
        elif was[name] != now[name]:
            _add_described_anew(stale, *was[name], now[name][1])
    return stale


def _add_described_anew(stale: _Stale, inode: int, old: Any, new: Any) -> None:
    if unix_day(old) != unix_day(new):
        stale.dated.append((inode, unix_day(new)))
    if isinstance(old, Series) and isinstance(new, Series) and old.version != new.version:
        stale.revised.append((inode, old))


def _by_folder(
    question: tuple[str, ...], before: Sequence[Any], after: Sequence[Any]
) -> Iterator[tuple[Level, Whose, list[Any], list[Any]]]:
    """Yield the folders that an answer is about, with the old records and the new ones in each."""
    kind, *whose = question
    if kind != "series":
        level = Level(len(whose))  # of collections the root, of patients their collection ...
        yield level, tuple(whose), list(before), list(after)
        return
    folders: defaultdict[str, tuple[list[Series], list[Series]]] = defaultdict(lambda: ([], []))
    for place, records in enumerate((before, after)):
        for series in records:
            folders[series.study_uid][place].append(series)
    for study_uid, (old, new) in folders.items():
        if set(old) != set(new):
            yield Level.STUDY, (*whose, study_uid), old, new


def _by_name(folder: Folder) -> dict[str, tuple[int, Any]]:
    return dict(zip(folder.names, zip(folder.inodes, folder.children, strict=True), strict=True))
