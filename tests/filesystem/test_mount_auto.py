"""What mounts by default: NBIA at once, and the IDC as soon as the table of its index is made, behind."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tciafs.archives.idc.index import LOCK_NAME
from tests.mounting import Mount, mounted, processes_marked, program, status_of, until
from tests.relay import Relay
from tests.s3 import RunningS3, needs_s3
from tests.sample.running import RunningSample

pytest.importorskip("duckdb")
pytestmark = [pytest.mark.mount, needs_s3]

BOUND_S = 60.0


class Place:
    """A folder in which the archive is mounted by default, and how far the table is there."""

    def __init__(self, written: Path, s3: RunningS3, server: Relay, folder: Path) -> None:
        self.server = server
        self.words = ("--idc-url", s3.url, "--idc-index", str(written / "index"), "--retries", "1")
        self.folder = folder
        self.tables = folder / "cache" / "idc"

    @contextmanager
    def mounted(self, *others: str | Path, background: bool = False) -> Iterator[Mount]:
        words = (*self.words, *others)
        with mounted(self.server.url, *words, folder=self.folder, background=background) as mount:
            yield mount

    @contextmanager
    def nobody_makes_the_table(self) -> Iterator[Callable[[], None]]:
        """Let whoever wants to make the table wait, until what this gives is called."""
        self.tables.mkdir(parents=True, exist_ok=True)
        with (self.tables / LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lambda: fcntl.flock(lock, fcntl.LOCK_UN)

    def table(self) -> list[Path]:
        return list(self.tables.glob("index-*.sqlite"))


@pytest.fixture
def place(written: Path, s3: RunningS3, nbia: RunningSample, tmp_path: Path) -> Iterator[Place]:
    with Relay(nbia.url) as server:
        yield Place(written, s3, server, tmp_path)


def remark(mount: Mount) -> str:
    return str(status_of(mount)["archive_remark"])


def until_joined(mount: Mount) -> None:
    until(lambda: "NBIA alone" not in remark(mount), "the Imaging Data Commons")


def folders_and_inodes(top: Path) -> dict[str, int]:
    """Return all folders down to the series, and their inode numbers."""
    return {
        str(Path(folder, name).relative_to(top)): Path(folder, name).stat().st_ino
        for folder, folders, _ in os.walk(top)
        for name in folders
    }


def test_nbia_answers_while_the_table_is_made_and_nothing_changes_when_the_idc_joins(place: Place) -> None:
    with place.nobody_makes_the_table() as let_go, place.mounted() as mount:
        assert "a table of the index of the Imaging Data Commons is being made" in mount.message
        assert "NBIA alone so far" in remark(mount)
        assert "is being made" in program("status", mount.path).stdout
        head = mount.path / "Phantom-Head"
        listed = folders_and_inodes(head)
        (series,) = head.glob("HEAD-001/*/2.000000*")
        images = {path.name: path.stat().st_ino for path in series.iterdir()}
        assert len(images) == 60
        assert program("prefetch", series).returncode == 0
        assert os.getxattr(series, "user.tciafs.route") == b"nbia"
        place.server.refuse()
        with ThreadPoolExecutor(1) as readers:
            waiting = readers.submit(os.listdir, mount.path / "CT Naming Traps")
            until(lambda: "is waited for" in mount.log(), "a question that NBIA does not answer")
            assert not waiting.done()
            let_go()
            assert waiting.result(BOUND_S)
        until_joined(mount)
        assert folders_and_inodes(head) == listed
        assert {path.name: path.stat().st_ino for path in series.iterdir()} == images
        assert os.getxattr(series, "user.tciafs.state") == b"local"
        (traps,) = (mount.path / "Numbering_Traps").glob("*/*/3*")
        first = min(path for path in traps.iterdir() if path.suffix == ".dcm")
        assert len(first.read_bytes()) == first.stat().st_size
        assert os.getxattr(first, "user.tciafs.in_part") != b""
        assert mount.log().count("the Imaging Data Commons is shown, too") == 1
        listings = os.listdir(place.folder / "cache" / "listings")
    with place.mounted() as mount:
        assert "NBIA alone" not in remark(mount)
        assert folders_and_inodes(mount.path / "Phantom-Head") == listed
        assert os.listdir(place.folder / "cache" / "listings") == listings


def test_a_daemon_that_is_killed_leaves_nothing_that_makes_a_table_and_the_next_makes_it(
    place: Place,
) -> None:
    with place.nobody_makes_the_table() as let_go, place.mounted() as mount:
        assert "NBIA alone so far" in remark(mount)
        until(lambda: len(makers(mount)) == 1, "the process that makes the table")
        (maker,) = makers(mount)
        assert os.getpriority(os.PRIO_PROCESS, maker) > os.getpriority(os.PRIO_PROCESS, mount.pid)
        left = place.tables / "index-tcia-0.1.new"
        left.write_bytes(b"as a process leaves it that is killed itself")
        mount.kill()
        assert not processes_marked(mount.mark)
        let_go()
    assert place.table() == []
    with place.mounted() as mount:
        until_joined(mount)
        assert len(place.table()) == 1
        assert not left.exists()
        annotated(mount, place)


def annotated(mount: Mount, place: Place) -> None:
    """Look at two series with annotations: one comes with them, and one without when NBIA is away."""
    (ct,) = (mount.path / "Phantom-Lung-Marked").glob("*/*/3000566*")
    (dx,) = (mount.path / "Phantom-Lung-Marked").glob("*/*/3000923*")
    assert {"069.xml", "086.xml"} <= set(os.listdir(ct))
    assert program("prefetch", ct).returncode == 0
    assert os.getxattr(ct, "user.tciafs.route") == b"nbia"
    assert os.getxattr(ct, "user.tcia.AnnotationsFlag") == b"yes"
    place.server.refuse()
    assert program("prefetch", dx).returncode == 0
    assert os.listdir(dx) == ["1-1.dcm"]
    assert os.getxattr(dx, "user.tciafs.route") == b"idc"
    assert b"could not be reached" in os.getxattr(dx, "user.tciafs.lacks")


def makers(mount: Mount) -> list[int]:
    """Return the processes of a mount that make a table, having begun to wait for others to be done."""
    return [
        pid
        for pid in processes_marked(mount.mark)
        if b"tciafs.archives.idc.index" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, mount.pid)
    ]


def test_an_index_that_cannot_be_read_leaves_nbia_alone_and_the_status_says_why(
    place: Place, written: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in (written / "index").iterdir():
        (damaged / path.name).write_bytes(path.read_bytes()[:100])
    with place.mounted("--idc-index", damaged) as mount:
        until(lambda: "could not be made" in remark(mount), "the failure")
        assert remark(mount).startswith(
            "NBIA alone, since the table of the Imaging Data Commons could not be made"
        )
        (series,) = (mount.path / "Phantom-Head").glob("HEAD-001/*/2.000000*")
        assert program("prefetch", series).returncode == 0
        assert os.getxattr(series, "user.tciafs.route") == b"nbia"
        assert mount.log().count("could not be made") == 1
        place.server.refuse()
        assert program("refresh", mount.path).returncode == 1


def test_another_server_is_not_mixed_with_an_index_that_is_installed(
    place: Place, written: Path, nbia: RunningSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "packages" / "idc_index_data"
    installed.mkdir(parents=True)
    for path in (written / "index").iterdir():
        (installed / path.name).write_bytes(path.read_bytes())
    (installed / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(installed.parent))
    with mounted(nbia.url, folder=tmp_path) as mount:
        assert status_of(mount)["archive"] == nbia.url
        assert remark(mount) == ""
        assert not makers(mount)
    assert not place.tables.exists()
    done = program("doctor", "--url", nbia.url)
    assert "Imaging Data Commons" not in done.stdout


def test_the_idc_alone_is_waited_for_and_that_is_said(place: Place) -> None:
    with place.mounted("--archive", "idc", background=True) as mount:
        said = (place.folder / "complaints").read_text()
        assert (
            "tciafs: making a table of the index of the Imaging Data Commons, which takes up to a minute"
            in said
        )
        assert "tciafs: made it in " in said
        assert "Phantom-Head" in os.listdir(mount.path)
        mount.signal(signal.SIGTERM)
        mount.wait_ended()
