"""`python -m tests.bench.line URL`: a server and a line before the sample archive, faster than who reads.

The sample archive makes a series while it sends it, in Python, which would be what is measured. Here each
series is made once, kept as the very bytes of its answer (in chunks of 8 KiB, as Tomcat sends them), and sent
from the page cache by the kernel, or through TLS; everything else is passed on to the archive. It may be slow
on purpose: `--pace` is how many bytes a second one connection carries. For benchmarks only: it trusts its
clients, and serves nobody but this machine.
"""

import argparse
import http.client
import mmap
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

__all__ = ["main"]

CHUNK_BYTES = 8192
PIECE_BYTES = 256 * 1024
UPSTREAM_TIMEOUT_S = 600.0
LONGEST_HEAD_BYTES = 64 * 1024
HEADERS_KEPT = ("content-type", "content-disposition")


@dataclass(slots=True)
class Line:
    """What a connection needs: where the archive is, where answers are kept, how fast the line is."""

    upstream: str
    folder: Path
    pace_bytes_s: float | None
    tls: ssl.SSLContext | None
    _making: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until its client goes away."""
        with suppress(OSError), self._secured(connection) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for target in _requests(line):
                if urlsplit(target).path.endswith("/getImage"):
                    self._send_prepared(line, target)
                else:
                    line.sendall(self._passed_on(target))

    @contextmanager
    def _secured(self, connection: socket.socket) -> Iterator[socket.socket]:
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        with connection:
            yield connection

    def _passed_on(self, target: str) -> bytes:
        """Return the archive's own answer, with its length before it."""
        with self._asked(target) as answer:
            body = answer.read()
        head = [f"HTTP/1.1 {answer.status} {answer.reason}", f"content-length: {len(body)}", *_kept(answer)]
        return "\r\n".join([*head, "", ""]).encode("latin-1") + body

    @contextmanager
    def _asked(self, target: str) -> Iterator[http.client.HTTPResponse]:
        archive = http.client.HTTPConnection(self.upstream, timeout=UPSTREAM_TIMEOUT_S)
        try:
            archive.request("GET", target)
            yield archive.getresponse()
        finally:
            archive.close()

    def _send_prepared(self, line: socket.socket, target: str) -> None:
        with self._prepared(target).open("rb") as file:
            if self.pace_bytes_s is None and self.tls is None:
                line.sendfile(file)
            else:
                self._send_pieces(line, file)

    def _send_pieces(self, line: socket.socket, file: BinaryIO) -> None:
        begun, sent_bytes = time.monotonic(), 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents, memoryview(contents) as view:
            for start in range(0, len(view), PIECE_BYTES):
                with view[start : start + PIECE_BYTES] as piece:
                    line.sendall(piece)
                    sent_bytes += len(piece)
                if self.pace_bytes_s is not None:
                    time.sleep(max(0.0, begun + sent_bytes / self.pace_bytes_s - time.monotonic()))

    def _prepared(self, target: str) -> Path:
        """Return the file with the whole answer to a request, made when it is first asked for."""
        place = self.folder / sha256(target.encode()).hexdigest()
        with self._making:
            if not place.exists():
                with self._asked(target) as answer, place.with_suffix(".new").open("wb") as file:
                    file.writelines(_chunked(answer))
                place.with_suffix(".new").rename(place)
        return place


def _chunked(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield an answer as it is to be sent."""
    head = [f"HTTP/1.1 {answer.status} {answer.reason}", "transfer-encoding: chunked", *_kept(answer)]
    yield "\r\n".join([*head, "", ""]).encode("latin-1")
    while piece := answer.read(CHUNK_BYTES):
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _kept(answer: http.client.HTTPResponse) -> list[str]:
    return [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() in HEADERS_KEPT]


def _requests(line: socket.socket) -> Iterator[str]:
    """Yield the target of each GET that comes over a connection."""
    head = b""
    while len(head) < LONGEST_HEAD_BYTES and (data := line.recv(LONGEST_HEAD_BYTES)):
        head += data
        while b"\r\n\r\n" in head:
            request, _, head = head.partition(b"\r\n\r\n")
            yield request.split(b" ", 2)[1].decode("ascii")


def _end_at_eof() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input ends; the first line of output is the URL for --url."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.line")
    parser.add_argument("url", help="the archive's own URL")
    parser.add_argument("--folder", type=Path, required=True, help="where answers are kept")
    parser.add_argument("--pace", type=float, metavar="BYTES", help="bytes a second for each connection")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="key and certificate; makes it https")
    chosen = parser.parse_args(arguments)
    tls = None
    if chosen.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(chosen.certificate)
    upstream = urlsplit(chosen.url)
    line = Line(upstream.netloc, chosen.folder, chosen.pace, tls)
    threading.Thread(target=_end_at_eof, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        scheme = "http" if tls is None else "https"
        print(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}{upstream.path}", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=line.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
