"""`python -m tests.filesystem.altered_mount CHANGE MOUNTPOINT ...`: tciafs with one thing made worse.

For mounts that have to meet what no archive can cause: a mistake in the program itself (CHANGE names a
request: the first one fails in an unexpected way), or time passing (`forgets`: failures are forgotten).
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from tciafs import cli
from tciafs.catalogue import asking
from tciafs.filesystem import configs, mount
from tciafs.filesystem.images import Images
from tciafs.filesystem.listings import Snapshot
from tciafs.filesystem.tree import Tree
from tciafs.settings import Settings
from tciafs.store.open_packs import OpenImage
from tciafs.store.store import Store, StoreConfig

PLANTED = {
    "lookup": (Tree, "child"),
    "getattr": (Tree, "attributes"),
    "opendir": (Tree, "listing"),
    "readdir": (Snapshot, "run"),
    "open": (Store, "open"),
    "read": (OpenImage, "read_at_hand"),
    "statfs": (Store, "usage"),
    "getxattr": (Store, "state"),
    "look": (Images, "look"),
}
"""Where to plant a mistake so that a request meets it: what its handler calls."""


def plant(owner: type, method: str, mistake: Exception) -> None:
    """Let the first call of a method, as a program on the mount counts, raise `mistake`."""
    real: Callable[..., Any] = getattr(owner, method)
    # A read-ahead that fails is tried again by the kernel, before anybody hears of it.
    mistakes = [mistake] * (2 if owner is OpenImage else 1)

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        if mistakes:
            raise mistakes.pop()
        return real(*args, **kwargs)

    setattr(owner, method, fails_once)


def forget_failures() -> None:
    """Let every failure be forgotten at once, of series and of listings."""
    asking.FAILURE_MEMORY_S = 0.0
    real = configs.store_config

    def forgetful(settings: Settings) -> StoreConfig:
        return dataclasses.replace(real(settings), failure_memory_s=0.0)

    setattr(mount, "store_config", forgetful)  # noqa: B010, as it is not exported from there


def main() -> None:
    """Make the change and run the command line without it."""
    change = sys.argv.pop(1)
    if change == "forgets":
        forget_failures()
    else:
        request, _, kind = change.partition(":")
        mistake: Exception = RuntimeError("planted")
        plant(*PLANTED[request], ExceptionGroup("planted", [mistake, mistake]) if kind else mistake)
    cli.main()


if __name__ == "__main__":
    main()
