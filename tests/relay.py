"""What can happen to a connection on its way: a relay before a server, and a proxy, as a test tells them.

`Relay` passes bytes on, encrypted or not, until it is to refuse connections or to reset them; `Proxy` is a
forward proxy that lets through, refuses, or asks for a user. Both listen on loopback, in threads that end
with the block they are used in.
"""

import http.client
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx

__all__ = ["Proxy", "Relay"]

PIECE_BYTES = 64 << 10
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: what is unsent is dropped, and the other side gets a reset; see socket(7)."""

PATIENCE_S = 10.0


class Relay:
    """Stands before the server of `url`: `self.url` leads through it. `heads` is what clients sent, and
    `answered_bytes` how much the server did, headers and all. `connections` counts those of clients.

    `tls` None passes on plain text; `reset_after_bytes` of an answer the connection is reset (None: never).
    """

    def __init__(self, url: str) -> None:
        target = httpx.URL(url)
        self._target = (target.host, target.port or 80)
        self._path = target.path
        self._open: set[socket.socket] = set()
        self.heads: list[bytes] = []
        self.answered_bytes = self.connections = 0
        self._counting = threading.Lock()
        self.tls: ssl.SSLContext | None = None
        self.reset_after_bytes: int | None = None
        self._port = 0
        self.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()

    @property
    def url(self) -> str:
        """The address of the services, through the relay."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self._port}{self._path}"

    def listen(self) -> None:
        """Take connections, at the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Let the address be one where nobody listens, and end all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections, so that the next request needs a new one."""
        for each in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)  # not SSLSocket's own, which forgets its state

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        try:
            with suppress(OSError), ExitStack() as stack:  # clients hang up, or do not trust the certificate
                stack.enter_context(client)
                if self.tls is not None:
                    client.settimeout(PATIENCE_S)
                    secured = self.tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
                    client = stack.enter_context(secured)
                    self._open.add(client)
                    secured.do_handshake()
                server = stack.enter_context(socket.create_connection(self._target))
                _pass_on(client, server, self._head_seen, self.reset_after_bytes, self._answer_seen)
        finally:
            self._open.discard(client)

    def _answer_seen(self, size_bytes: int) -> None:
        with self._counting:
            self.answered_bytes += size_bytes

    def _head_seen(self, sent: bytes) -> None:
        self.heads.append(sent)


def _pass_on(
    client: socket.socket,
    server: socket.socket,
    seen: Callable[[bytes], None],
    reset_after_bytes: int | None,
    answered: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Pass bytes on in both directions until one side ends, or so many of the server's have passed."""
    left = reset_after_bytes
    while True:
        buffered = isinstance(client, ssl.SSLSocket) and client.pending()
        ready = [client] if buffered else select.select([client, server], [], [])[0]
        for side in ready:
            piece = side.recv(PIECE_BYTES)
            if not piece:
                return
            if side is client:
                seen(piece)
                server.sendall(piece)
                continue
            answered(len(piece))
            client.sendall(piece if left is None else piece[:left])
            if left is not None and (left := left - len(piece)) <= 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return


class Proxy:
    """A forward proxy: `url` is for HTTP_PROXY. `asked` are the addresses that it was asked for.

    `refuses_with` is the status it answers instead of letting through (None: it lets through); `user`, as
    "name:password" in base64, is whom it lets through if not everybody.
    """

    def __init__(self) -> None:
        self.refuses_with: int | None = None
        self.user: str | None = None
        self.asked: list[str] = []
        self.url = ""

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Let one run for the length of the block."""
        proxy = cls()
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy)) as server:
            server.daemon_threads = True
            proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield proxy
            finally:
                server.shutdown()
                thread.join(PATIENCE_S)

    def refusal_of(self, authorization: str) -> int | None:
        """Return the status for a request with this Proxy-Authorization, None to let it through."""
        if self.user is not None and authorization != f"Basic {self.user}":
            return 407
        return self.refuses_with


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self._lets_through():
                self._forward()

        do_POST = do_GET

        def do_CONNECT(self) -> None:
            if not self._lets_through():
                return
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port))) as server, suppress(OSError):
                self.send_response(200)
                self.end_headers()
                _pass_on(self.connection, server, lambda _sent: None, None)

        def _lets_through(self) -> bool:
            proxy.asked.append(self.path)
            status = proxy.refusal_of(self.headers.get("Proxy-Authorization", ""))
            if status is None:
                return True
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False

        def _forward(self) -> None:
            url = httpx.URL(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name: value for name, value in self.headers.items() if name != "Proxy-Authorization"}
            server = http.client.HTTPConnection(url.host, url.port or 80, timeout=PATIENCE_S)
            server.request(self.command, url.raw_path.decode("ascii"), body, headers)
            answer = server.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            server.close()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
