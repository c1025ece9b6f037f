"""What a daemon can be asked to do: the seam between whoever knows the rooms and the server of the socket.

A new command is a field here, a line in `server` (its path and the value of its request), a function in
`client`, and a section in docs/control.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tciafs.control.known_values import KnownPage, LocatedImage
from tciafs.control.manifest_values import AddedManifest, AddManifest, ManifestPage
from tciafs.control.series_values import Prefetch, PrefetchTurn, SeriesPage
from tciafs.control.usage_values import UsedPage
from tciafs.control.values import CachedPage, CheckPlace, CheckTurn, Evicted, FailurePage, Status

__all__ = ["Commands"]


@dataclass(frozen=True, slots=True)
class Commands:
    """All may raise TciafsError, which the command gets.

    `status` never waits, nor does `failures`, which takes the series UID behind which to go on ("": begin);
    `cached` takes a path and such a UID, `check` a series UID and how far it was read before; `series` takes
    a path and that of a series behind which to go on, and so does `failed`; `named` takes series UIDs, and
    one behind which to go on. `prefetch` takes what is wished, `refresh` a path. `pin` has the
    series at a path kept (True) or not (False), `evict` takes what `cached` takes. `pause` has all downloads
    stand still (True) or go on (False), `log_level` the daemon log so much, both at once. `known` takes a
    path and a name behind which to go on, `locate` a series UID and which image is meant; neither asks the
    archive. `add_manifest` takes a part of one; with the last part it is kept, and the answer tells of it.
    `manifests` takes the name behind which to go on, `remove_manifest` a name. `used` takes a day and a
    place, and never waits.
    """

    status: Callable[[], Status]
    failures: Callable[[str], FailurePage]
    cached: Callable[[str, str], Awaitable[CachedPage]]
    check: Callable[[str, CheckPlace], Awaitable[CheckTurn]]
    series: Callable[[str, tuple[str, ...]], Awaitable[SeriesPage]]
    failed: Callable[[str, tuple[str, ...]], Awaitable[SeriesPage]]
    named: Callable[[tuple[str, ...], str], Awaitable[SeriesPage]]
    prefetch: Callable[[Prefetch], Awaitable[PrefetchTurn]]
    refresh: Callable[[str], Awaitable[None]]
    pin: Callable[[str, bool], Awaitable[None]]
    evict: Callable[[str, str], Awaitable[Evicted]]
    pause: Callable[[bool], None]
    known: Callable[[str, str], Awaitable[KnownPage]]
    locate: Callable[[str, int | None], Awaitable[LocatedImage]]
    log_level: Callable[[str], None]
    add_manifest: Callable[[AddManifest], Awaitable[AddedManifest | None]]
    manifests: Callable[[str], ManifestPage]
    remove_manifest: Callable[[str], Awaitable[None]]
    used: Callable[[str, int], UsedPage]
