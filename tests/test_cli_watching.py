"""`tciafs status --watch` where a mount goes while its daemon is asked; the table of mounts is given here."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tciafs.cli import watching
from tciafs.control import client
from tciafs.control.values import Status
from tciafs.errors import NoDaemon, Unusable
from tciafs.filesystem import mountpoint as mountpoints
from tciafs.filesystem.mountpoint import Ours
from tests.statuses import make_status

A, B = Ours(Path("/mnt/a"), 0), Ours(Path("/mnt/b"), 0)


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "EVERY_S", 0.0)
    monkeypatch.setattr(mountpoints, "is_dead", lambda _mountpoint: False)


class Mounts:
    """Mounts of which each answers so many times, and is unmounted while it is asked once more."""

    def __init__(self, **answers: int) -> None:
        self._left = {mount: answers[mount.path.name] for mount in (A, B) if mount.path.name in answers}

    def find(self) -> Sequence[Ours]:
        if not self._left:
            raise Unusable("no tciafs is mounted")
        return list(self._left)

    def ask(self, mountpoint: Path) -> Status:
        (mount,) = (each for each in (A, B) if each.path == mountpoint)
        self._left[mount] -= 1
        if self._left[mount] < 0:
            del self._left[mount]
            raise NoDaemon("the daemon ended before it answered: No such file or directory")
        return make_status(mountpoint=str(mountpoint))


@pytest.mark.parametrize("answers", [{"a": 1}, {"a": 1, "b": 3}, {"a": 2, "b": 2}])
def test_a_mount_that_goes_while_it_is_asked_is_no_error(
    answers: dict[str, int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mounts = Mounts(**answers)
    monkeypatch.setattr(client, "ask_status", mounts.ask)
    code = watching.watch(mounts.find, as_json=True)
    said = capfd.readouterr()
    assert (code, said.err) == (0, "")
    assert len(said.out.splitlines()) == len(answers)
