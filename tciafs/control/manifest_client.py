"""The command's end of the control socket for manifests; see `client`."""

from collections.abc import Sequence
from pathlib import Path

from tciafs.control.client import ANSWER_TIMEOUT_S, ask, patience_of
from tciafs.control.manifest_values import (
    AddedManifest,
    AddManifest,
    KeptManifest,
    ListManifests,
    ManifestPage,
    RemoveManifest,
)

__all__ = ["ask_add_manifest", "ask_manifests", "ask_remove_manifest"]

UIDS_AT_ONCE = 800
"""Some 55 kB, of the 64 that a request may have."""

LOOKING_S = 300.0
"""So long it may take to find where the series of a long manifest are."""


def ask_add_manifest(mountpoint: Path, name: str, uids: Sequence[str]) -> AddedManifest:
    """Have a manifest kept by the daemon of a mount, and a view made of it. Raises as `ask_refresh`."""
    for place in range(0, max(len(uids), 1), UIDS_AT_ONCE):
        some = tuple(uids[place : place + UIDS_AT_ONCE])
        is_whole = place + UIDS_AT_ONCE >= len(uids)
        wish = AddManifest(name, some, place, is_whole)
        if is_whole:
            timeout_s = patience_of(mountpoint) + LOOKING_S
            return ask(mountpoint, "add-manifest", wish, AddedManifest, timeout_s)
        ask(mountpoint, "add-manifest", wish, None, ANSWER_TIMEOUT_S)
    raise AssertionError("a manifest has a last part")


def ask_manifests(mountpoint: Path) -> list[KeptManifest]:
    """Return the manifests that the daemon of a mount keeps. Raises as `ask_status`."""
    manifests: list[KeptManifest] = []
    more = True
    while more:
        after = manifests[-1].name if manifests else ""
        page = ask(mountpoint, "manifests", ListManifests(after), ManifestPage, ANSWER_TIMEOUT_S)
        manifests += page.manifests
        more = page.more and bool(page.manifests)
    return manifests


def ask_remove_manifest(mountpoint: Path, name: str) -> None:
    """Have a manifest and its view dropped. Raises as `ask_status`, or NoSuchName."""
    ask(mountpoint, "remove-manifest", RemoveManifest(name), None, ANSWER_TIMEOUT_S)
