"""Who a mount is to its archive: a guest, or a user with a login.

The login is looked for anew at each renewal, so that `tciafs login` helps a mount whose token has died.
"""

from functools import partial

import trio

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.login import Login, Session, require_encrypted, token_url
from tciafs.credentials import LoginStore, login_for
from tciafs.settings import Settings

__all__ = ["open_session"]


async def open_session(settings: Settings, limits: HttpLimits) -> Session | None:
    """Return the session for the login that the settings name or the user has kept; None: a guest.

    Raises Misuse for a login that cannot be used as it is.
    """
    if settings.archive not in ("nbia", "auto"):
        return None  # only NBIA has users
    server = token_url(settings.url)
    store = await trio.to_thread.run_sync(LoginStore.of_user)
    find = partial(login_for, server, settings.user, settings.password_file, store)
    login = await trio.to_thread.run_sync(find)
    if login is None:
        return None
    require_encrypted(settings.url)

    def keep(changed: Login) -> None:
        if changed.password is None:  # else the password is all it takes, and stays where it is
            store.keep(server, changed)

    return Session(settings.url, limits, login.user, find, keep)
