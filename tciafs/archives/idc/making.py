"""The table of an index of the Imaging Data Commons, made when it is first wanted, by another process.

A table is made anew for another release of the index. Defined here and only here: which file it is, and what
became of the process.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from tciafs.archives.idc.index import BEHIND, FILES
from tciafs.archives.idc.table import FORMAT
from tciafs.errors import Misuse, TciafsError, Unusable

__all__ = ["MADE_WITHIN", "TableOrder", "make_table", "make_while_telling", "table_order"]

MADE_WITHIN = "which takes up to a minute, once for each release"
"""What to tell who waits for it."""

TOLD_EVERY_S = 5.0
MOST_SAID_BYTES = 4000
REAP_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class TableOrder:
    """A table to be made: the folder of the index, the file, and its kind; see `index.main`."""

    index: Path
    path: Path
    kind: str

    @property
    def is_carried_out(self) -> bool:
        """Whether the table is there; whether it can be read, who opens it sees."""
        return self.path.exists()


def table_order(index: Path, folder: Path, *, everything: bool, release: int | None = None) -> TableOrder:
    """Return what table of the index in the folder `index` is to be in `folder`; nothing is made.

    `everything` takes what others than TCIA published too. `release` is an earlier release of the IDC; None:
    that of the index. Raises Unusable where the index is not there.
    """
    kind = ("all" if everything else "tcia") + ("" if release is None else f".v{release}")
    return TableOrder(index, folder / f"index-{kind}-{_mark(index)}.sqlite", kind)


async def make_table(order: TableOrder, *, behind: bool = False) -> None:
    """Return once the table is there, made now if nobody else does; `behind` others that need the processor.

    The process ends with this one, however that ends. Raises Unusable where the index cannot be read or the
    table not be written, Misuse for a release that the index does not know.
    """
    # -P: what happens to lie in the working folder is not imported.
    command = [sys.executable, "-P", "-m", "tciafs.archives.idc.index"]
    command += [str(order.index), str(order.path), order.kind, *([BEHIND] if behind else [])]
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Unusable(f"no process could be started that reads the index: {error.strerror}") from error
    _raise_for(*await _outcome(process))


async def make_while_telling(order: TableOrder, told: Callable[[str], None]) -> None:
    """Make the table, and say now and then how long that has taken. Raises what `make_table` raises."""
    begun = trio.current_time()

    async def tell() -> None:
        told(f"making a table of the index of the Imaging Data Commons, {MADE_WITHIN}")
        while True:
            await trio.sleep(TOLD_EVERY_S)
            told(f"still making it, for {trio.current_time() - begun:.0f} s now")

    failure: TciafsError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        try:
            await make_table(order)
        except TciafsError as error:  # as it is, and in no group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    told(f"made it in {trio.current_time() - begun:.0f} s")


async def _outcome(process: trio.Process) -> tuple[int, str]:
    """Return how a process ended, and what it said last; it is gone then, also if we are cancelled."""
    assert process.stdin is not None
    assert process.stderr is not None
    said = b""
    try:
        async for data in process.stderr:
            said = (said + data)[-MOST_SAID_BYTES:]
        status = await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(REAP_PATIENCE_S):
            await process.wait()
        for stream in (process.stdin, process.stderr):
            with trio.CancelScope(shield=True), trio.move_on_after(REAP_PATIENCE_S):
                await stream.aclose()
    return status, said.decode(errors="replace").strip().rpartition("\n")[2]


def _raise_for(status: int, said: str) -> None:
    if status == Misuse.exit_code:
        raise Misuse(said)
    if status:
        said = said or f"the process that did it ended with {status}"
        raise Unusable(f"the table of the Imaging Data Commons could not be made: {said}")


def _mark(index: Path) -> str:
    """Return what differs between two releases of the index: sizes and times of its files, and our format."""
    digest = hashlib.blake2b(f"{FORMAT}".encode(), digest_size=8)
    for name in FILES:
        try:
            found = (index / f"{name}.parquet").stat()
        except OSError as error:
            raise Unusable(f"{index} holds no index of the Imaging Data Commons: {error}") from error
        digest.update(f" {found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()
