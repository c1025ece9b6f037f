"""What NBIA means when it refuses: by words, since it says 400 for what is forbidden as for what is unknown.

Defined here and only here: those words. Pure functions.
"""

from tciafs.archives.http.errors import RequestRejected
from tciafs.errors import AccessDenied, TciafsError, UnreadableAnswer

__all__ = ["explained", "names_unknown_parameter"]

_DENIED = ("not in public domain", "not been granted")
_UNKNOWN_PARAMETER = ("invalid query parameter", "invalid form parameter")


def explained(rejected: RequestRejected) -> TciafsError:
    """Return the error that a refusal means."""
    if _says(rejected, _DENIED):
        return AccessDenied(str(rejected))
    if names_unknown_parameter(rejected):
        return UnreadableAnswer(f"{rejected} (is --api right for this server?)")
    return UnreadableAnswer(str(rejected))


def names_unknown_parameter(rejected: RequestRejected) -> bool:
    """Return whether the server does not know one of the parameters it was sent."""
    return _says(rejected, _UNKNOWN_PARAMETER)


def _says(rejected: RequestRejected, phrases: tuple[str, ...]) -> bool:
    return rejected.status == 400 and any(phrase in rejected.text.lower() for phrase in phrases)
