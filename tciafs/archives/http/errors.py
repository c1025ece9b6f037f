"""httpx's exceptions, and refusals that asking again does not change, as errors of ours.

Defined here and only here: which of our errors each exception of httpx becomes, and its sentence. Pure
functions without I/O.
"""

import ssl

import httpx

from tciafs.errors import DeadlinePassed, TciafsError, Unreachable, UnreadableAnswer

__all__ = ["ABSENT", "FOREIGN", "RequestRejected", "printable_line", "proxy_asks_for_user", "translate"]


ABSENT = (404, 405, 410, 501)
"""How servers say that what was asked for, such as a version of an API, is not there."""

_EXCERPT_LENGTH = 200


class RequestRejected(UnreadableAnswer):
    """The server understood, and refused with a status that asking again does not change.

    `text` is the start of what it wrote, one line of printable characters. For the archives, which
    know what a status means to their server and raise the error that says so.
    """

    retryable = False

    def __init__(self, message: str, status: int, text: str) -> None:
        super().__init__(message)
        self.status = status
        self.text = text


_TRANSLATIONS: tuple[tuple[type[Exception], type[TciafsError], str], ...] = (
    (httpx.ConnectTimeout, DeadlinePassed, "{host} could not be connected to in time for {asked}"),
    (httpx.ReadTimeout, DeadlinePassed, "{host} stopped sending during {asked}"),
    (httpx.WriteTimeout, DeadlinePassed, "{host} did not take the request {asked} in time"),
    (httpx.PoolTimeout, DeadlinePassed, "no connection to {host} became free for {asked}"),
    (httpx.TimeoutException, DeadlinePassed, "{host} did not answer {asked} in time"),
    (httpx.ConnectError, Unreachable, "{host} could not be reached for {asked}"),
    (httpx.ReadError, Unreachable, "the connection to {host} broke during {asked}"),
    (httpx.WriteError, Unreachable, "the connection to {host} broke during the request {asked}"),
    (httpx.CloseError, Unreachable, "the connection to {host} could not be closed after {asked}"),
    (httpx.NetworkError, Unreachable, "the connection to {host} failed during {asked}"),
    (httpx.RemoteProtocolError, Unreachable, "{host} broke off its answer to {asked}"),
    (httpx.LocalProtocolError, UnreadableAnswer, "{asked} could not be put to {host} as HTTP"),
    (httpx.ProtocolError, UnreadableAnswer, "{host} did not speak HTTP in answer to {asked}"),
    (httpx.ProxyError, Unreachable, "the proxy did not let {asked} through to {host}"),
    (httpx.UnsupportedProtocol, UnreadableAnswer, "{host} sent {asked} to no web address"),
    (httpx.TransportError, Unreachable, "the line to {host} failed during {asked}"),
    (httpx.DecodingError, UnreadableAnswer, "{host} compressed its answer to {asked} wrongly"),
    (httpx.TooManyRedirects, UnreadableAnswer, "{host} redirects {asked} in circles"),
    (httpx.RequestError, UnreadableAnswer, "the request {asked} to {host} failed"),
    (httpx.HTTPStatusError, UnreadableAnswer, "{host} answered {asked} with an error status"),
    (httpx.HTTPError, UnreadableAnswer, "the request {asked} to {host} failed"),
    (httpx.InvalidURL, UnreadableAnswer, "{host} sent {asked} to an address that is none"),
    (httpx.CookieConflict, UnreadableAnswer, "{host} sent cookies that contradict each other"),
    (httpx.StreamConsumed, UnreadableAnswer, "the answer of {host} to {asked} was read twice"),
    (httpx.StreamClosed, UnreadableAnswer, "the answer of {host} to {asked} was closed early"),
    (httpx.ResponseNotRead, UnreadableAnswer, "the answer of {host} to {asked} was not read"),
    (httpx.RequestNotRead, UnreadableAnswer, "the request {asked} to {host} was not read"),
    (httpx.StreamError, UnreadableAnswer, "the answer of {host} to {asked} could not be read"),
    # A redirect can name a host that no resolver takes; that surfaces as a plain UnicodeError.
    (UnicodeError, UnreadableAnswer, "{host} sent {asked} to a host name that is none"),
)

FOREIGN = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
    UnicodeError,
)
"""What `translate` knows: all that httpx raises."""


def translate(error: Exception, host: str, asked: str) -> TciafsError:
    """Return our error for one of httpx, with a sentence that names the host and what was asked.

    The text of `error` is added only where it comes from the operating system or from httpx itself:
    never an address, which might hold a secret.
    """
    certificate = _certificate_failure(error)
    if certificate is not None:
        untrusted = Unreachable(
            f"the certificate of {host} is not trusted: {certificate.verify_message} "
            "(SSL_CERT_FILE names a file of certificates to trust)"
        )
        untrusted.retryable = False
        return untrusted
    if isinstance(error, httpx.ProxyError) and str(error).startswith("407"):  # then the proxy's own words
        return proxy_asks_for_user(host, asked)
    _, ours, sentence = next(row for row in _TRANSLATIONS if isinstance(error, row[0]))
    detail = str(error) if isinstance(error, httpx.NetworkError | httpx.ProtocolError) else ""
    return ours(sentence.format(host=host, asked=asked) + (f": {detail}" if detail else ""))


def proxy_asks_for_user(host: str, asked: str) -> TciafsError:
    """Return what stands for a proxy's status 407, which asking again does not change."""
    refusal = Unreachable(
        f"the proxy in the environment did not let {asked} through to {host}: it asks for a user name and "
        "password (http://USER:PASSWORD@PROXY in HTTPS_PROXY)"
    )
    refusal.retryable = False
    return refusal


def _certificate_failure(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the refused certificate among the causes of `error`, None if that is not why."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def printable_line(text: str) -> str:
    """Return a line fit for a message, whatever a server wrote."""
    if text.lstrip().startswith("<"):
        return "a web page"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:_EXCERPT_LENGTH]
