"""What a request of the kernel is about, in words for the log: a path and a process, and not only numbers.

Handed the tree and what is open; asks nothing of anybody.
"""

from typing import TYPE_CHECKING

from tciafs.filesystem.guard import program_names

if TYPE_CHECKING:
    from tciafs.filesystem.handles import Handles
    from tciafs.filesystem.tree import Tree

__all__ = ["Requests"]

BY_HANDLE = frozenset(("readdir", "releasedir", "read", "flush", "release"))
"""Requests that name an open file or folder; the others name an inode."""


class Requests:
    """Requests of one mount: a handler's name and its arguments in words."""

    def __init__(self, tree: "Tree", handles: "Handles") -> None:
        self._tree = tree
        self._handles = handles

    def where(self, request: str, args: tuple[object, ...]) -> str:
        """Return the path a request was about, as far as its arguments tell; never raises."""
        first, second = (*args, None)[:2]
        if not isinstance(first, int):
            return "/"  # about the whole mount
        try:
            node = self._handles.node(first) if request in BY_HANDLE else self._tree.node(first)
            path = self._tree.path(node)
        except Exception:
            return repr(args)
        # repr, without its quotes: whatever a program looks up, a line of the log stays a line.
        return f"{path.rstrip('/')}/{_shown(second)}" if isinstance(second, bytes) else path

    def said(self, request: str, args: tuple[object, ...]) -> str:
        """Return a request as a line of the log begins: what is asked, where, and by which process."""
        pid = getattr(args[-1] if args else None, "pid", None)
        process = "" if pid is None else f" for process {pid} ({next(iter(program_names(pid)), '?')})"
        return f"{request} {self.where(request, args)}{process}"


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "surrogateescape"))[1:-1]
