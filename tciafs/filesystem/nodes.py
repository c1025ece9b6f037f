"""The values of the tree: nodes that the kernel knows, children that it may get to know, their attributes.

Structs and not dataclasses: there are hundreds of thousands of nodes, of which the garbage collector need not
know (they point only upwards), and to make one of the others takes an eighth of the time.
"""

import msgspec

from tciafs.filesystem.identities import Level, Whose

__all__ = ["Attributes", "Child", "Node"]


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """What the kernel is told of an inode: `timeout_s` is how long it may believe it.

    `size_bytes` of a provisional entry is meaningless, and its `timeout_s` 0: the kernel asks again
    before it uses it. A folder that `may_be_long` is read in larger pieces. Siblings share one value where
    they are alike.
    """

    is_folder: bool
    size_bytes: int
    mtime_ns: int
    timeout_s: float
    may_be_long: bool = False


class Child(msgspec.Struct, frozen=True, gc=False):
    """A name in a folder and what is behind it; not yet an inode that the kernel knows.

    `key` tells it from its siblings, `day` is its date in days since 1970 (None: it has none).
    """

    inode: int
    name: str
    level: Level
    key: str
    day: int | None
    attributes: Attributes


class Node(msgspec.Struct, eq=False, gc=False):
    """An inode that the kernel knows: `lookups` is how often it was told. See `Child` for key and day."""

    inode: int
    level: Level
    parent: "Node | None"
    key: str
    day: int | None = None
    lookups: int = 0

    @property
    def whose(self) -> Whose:
        """The keys on the way from the top to here: from the root, or from that of a view."""
        keys: list[str] = []
        step = self
        while step.level < Level.VIEWS or step.level is Level.KIND:
            if step.parent is None:
                break
            keys.append(step.key)
            step = step.parent
        return tuple(reversed(keys))

    @property
    def top(self) -> "Node":
        """The node below which its collection is: the root, or that of a view."""
        step = self
        while step.parent is not None and (step.level < Level.VIEWS or step.level is Level.KIND):
            step = step.parent
        return step
