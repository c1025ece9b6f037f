"""The command: `python -m tciafs.sample` serves the sample archive until it is told to end.

It prints one line, the URL for --url, when it listens. It holds nothing that must be put away, so
its end is the end of the process: at once, also while a client is slow to read.
"""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import trio

from tciafs.sample import bulk, content, folder, traps
from tciafs.sample.as_idc import write_as_idc
from tciafs.sample.holdings import Collection, Holdings, Keys
from tciafs.sample.index_collections import collections_of_index
from tciafs.sample.index_reader import IndexMissing, installed_index, read_index
from tciafs.sample.login import Logins
from tciafs.sample.server import TOMCAT_CHUNK_BYTES, VERSIONS, SampleServer, serve

__all__ = ["main"]

INSTALLED = Path()
IDC_INDEX = "add all that TCIA published, out of idc_index.parquet (no FILE: the installed package's)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tciafs.sample",
        description="Serve a small imaging archive that speaks the NBIA API, on loopback only.",
    )
    add = parser.add_argument
    add("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (0: a free one)")
    add("--api", choices=VERSIONS, help="offer only this API version (else both)")
    add("--no-md5", action="store_true", help="know no IncludeMD5, like servers before Nov 2025")
    add("--chunk-size", type=_positive, default=TOMCAT_CHUNK_BYTES, metavar="BYTES")
    add("--login", metavar="USER:PASSWORD", help="account that may see Limited-Access")
    add("--sample-dir", type=Path, action="append", default=[], metavar="DIR")
    add("--sample-collection", default="SAMPLE", metavar="NAME", help="collection of --sample-dir")
    add("--bench-slices", type=_positive, metavar="N", help="add BENCH: a CT of N 512x512 slices")
    add("--bench-series", type=_positive, default=1, metavar="N", help="so many of them in BENCH (else 1)")
    add("--many-patients", type=_positive, metavar="N", help="add MANY: N patients of one image")
    add("--many-series", type=_positive, metavar="N", help="add MANYSERIES: N small series")
    add("--series-uids", type=Path, metavar="FILE", help="add NAMED: a small series for each line, a UID")
    add("--huge-images", type=_positive, metavar="N", help="add HUGE: one series of N tiny images")
    add("--idc-index", type=Path, nargs="?", const=INSTALLED, metavar="FILE", help=IDC_INDEX)
    add("--idc-collection", action="append", default=[], metavar="NAME", help="of the index only this one")
    add(
        "--write-idc",
        type=Path,
        metavar="FOLDER",
        help="only write all of it as the Imaging Data Commons has it",
    )
    add("--until-eof", action="store_true", help="end when standard input ends")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _collections(options: argparse.Namespace) -> list[Collection]:
    shelves: list[Collection] = [*content.shelves(), *traps.shelves()]
    if options.sample_dir:
        shelves.append(folder.shelf(options.sample_collection, options.sample_dir))
    if options.many_patients:
        shelves.append(bulk.many_patients(options.many_patients))
    if options.many_series:
        shelves.append(bulk.many_series(options.many_series))
    if options.series_uids:
        shelves.append(bulk.named(options.series_uids.read_text("utf-8").split()))
    if options.huge_images:
        shelves.append(bulk.huge(options.huge_images))
    if options.bench_slices:
        bench = bulk.bench(options.bench_slices, options.bench_series)
        for series in bench.series:
            series.images()  # made now, so that no measurement waits for it
        shelves.append(bench)
    if options.idc_index or options.idc_collection:
        index = installed_index() if options.idc_index in (None, INSTALLED) else options.idc_index
        shelves.extend(collections_of_index(read_index(index, options.idc_collection)))
    return shelves


def _server(options: argparse.Namespace) -> SampleServer:
    account = None
    if options.login:
        user, _, password = options.login.partition(":")
        account = (user, password)
    return SampleServer(
        Holdings(_collections(options)),
        versions=(options.api,) if options.api else VERSIONS,
        offers_md5=not options.no_md5,
        chunk_bytes=options.chunk_size,
        logins=Logins(account),
    )


def _end(*_: object) -> NoReturn:
    os._exit(0)


def _end_at_eof() -> None:
    """Read standard input to its end, in a thread, and end the process."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _end()


async def _run(server: SampleServer, port: int) -> None:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve, server, port)
        sys.stdout.write(url + "\n")
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM, SIGINT or, with --until-eof, the end of standard input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # odd headers are this archive's business, not its user's
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    if options.until_eof:
        threading.Thread(target=_end_at_eof, daemon=True).start()
    if options.write_idc is not None:
        shown = Holdings(_collections(options)).series(Keys(), restricted=False)
        write_as_idc(options.write_idc, shown)
        return
    try:
        server = _server(options)
    except IndexMissing as error:
        parser.error(str(error))
    trio.run(partial(_run, server, options.port))


if __name__ == "__main__":
    main()
