"""`python -m tests.bench`: the speed of a mount beside what people use without one, or instead of it.

The data come from the sample archive on loopback. Nothing here is asserted: figures go to the reader.
Lines are shown as they come, and all of them at the end.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from tests.bench.away import AWAY
from tests.bench.cold import COLD, FIRST
from tests.bench.comparing import Line
from tests.bench.copying import COPYING
from tests.bench.exports import EXPORT
from tests.bench.idc import IDC
from tests.bench.index import WHOLE_INDEX
from tests.bench.latency import LATENCY
from tests.bench.listings import LISTING
from tests.bench.parts import INDEX, Options, Part
from tests.bench.peers import RCLONE
from tests.bench.requests import REQUESTS
from tests.bench.walks import WALK
from tests.bench.warm import WARM

PARTS = {
    part.name: part
    for part in (
        COLD,
        FIRST,
        IDC,
        COPYING,
        WARM,
        LATENCY,
        LISTING,
        REQUESTS,
        RCLONE,
        AWAY,
        EXPORT,
        WALK,
        WHOLE_INDEX,
    )
}
ROUNDS = 5
WIDTH = 200


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure; assert nothing.")
    add = parser.add_argument
    add(
        "--only", type=_parts, default=list(PARTS.values()), metavar="NAME,...", help="these parts (else all)"
    )
    add("--list", action="store_true", help="say which parts there are, and what they lack here")
    add("--rounds", type=_positive, default=ROUNDS, metavar="N", help=f"how often (else {ROUNDS} times)")
    add(
        "--collections",
        type=_collections,
        metavar="N|NAME,...",
        help="walk over the N smallest collections, or these (else over the whole archive)",
    )
    return parser


def _parts(text: str) -> list[Part]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"not a part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return [PARTS[name] for name in names]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _collections(text: str) -> int | tuple[str, ...]:
    return _positive(text) if text.isdecimal() else tuple(text.split(","))


def _show_parts(console: Console) -> None:
    table = Table("part", "measures", "missing here")
    for part in PARTS.values():
        table.add_row(part.name, part.about, _missing(part))
    console.print(table)


def _missing(part: Part) -> str:
    names = (f"packages of the extra {need}" if need == INDEX else need for need in part.missing())
    return ", ".join(names)


def _measure(part: Part, options: Options, take: Callable[[Line], None]) -> None:
    """Run a part; what it lacks, or fails of, becomes a line of its own."""
    if missing := _missing(part):
        take(Line(part.name, f"skipped, missing here: {missing}", "make bench installs it"))
        return
    try:
        for line in part.measure(options):
            take(line)
    except Exception as error:  # the other parts still have something to say
        take(Line(part.name, f"failed: {error}"))


def _interrupt(*_: object) -> NoReturn:
    sys.exit("interrupted")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen parts and print what came of them."""
    chosen = _parser().parse_args(arguments)
    # Also who ends it politely finds nothing mounted afterwards.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    console, progress = Console(width=WIDTH), Console(stderr=True, width=WIDTH, highlight=False)
    if chosen.list:
        _show_parts(console)
        return
    rounds = f"{chosen.rounds} rounds" if chosen.rounds > 1 else "one round"
    table = Table("what", "tciafs", "beside", "comparison", title=f"median of {rounds} (least to most)")

    def take(line: Line) -> None:
        table.add_row(line.what, line.ours, line.beside, line.verdict)
        progress.print(
            "  ", " | ".join((line.what, line.ours, line.beside, line.verdict)), markup=False, soft_wrap=True
        )

    try:
        for part in chosen.only:
            progress.print(f"{part.name}: {part.about}", markup=False)
            with tempfile.TemporaryDirectory(prefix="tciafs-bench-") as folder:
                _measure(part, Options(Path(folder), chosen.rounds, chosen.collections), take)
    finally:
        console.print(table)


if __name__ == "__main__":
    main()
