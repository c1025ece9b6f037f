"""Logging in to an archive and out again."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tciafs.cli.output import say
from tciafs.errors import Misuse, TciafsError
from tciafs.setting_sources import load_settings

if TYPE_CHECKING:
    from tciafs.archives.nbia.login import Login

__all__ = ["login", "logout"]

_URL = click.option("--url", metavar="URL", help="Address of the NBIA services; default: TCIA's, or as set.")
_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file (TOML)."
)


@click.command(short_help="Log in, for data that not everybody may see.")
@click.option("--user", metavar="NAME", help="Your name at the archive; asked for if not given.")
@_URL
@_CONFIG
def login(user: str | None, url: str | None, config: Path | None) -> None:
    """Log in to the archive, for data that not everybody may see.

    Asks for the password, and keeps a token and not the password: in the desktop's keyring if there is
    one, else in a file that only you can read. Mount again afterwards. A server that mounts by itself
    has its password in a file instead: --password-file of tciafs mount.

    \b
      tciafs login
      tciafs login --user ada
    """
    from tciafs.credentials import LoginStore

    services_url, server = _server(url, config)
    if not sys.stdin.isatty():
        raise Misuse("login asks for a password on a terminal; without one, mount with --password-file")
    user = user or click.prompt("User", err=True)
    password = click.prompt("Password", hide_input=True, err=True)
    logged_in = _logged_in(services_url, user, password)
    if logged_in.refresh_token is None:
        raise TciafsError(f"{server} gives no token that could be kept; mount with --password-file")
    where = LoginStore.of_user().keep(server, logged_in)
    say(f"logged in as {logged_in.user}; the token is kept in {where}. Mount again to use it.")


@click.command(short_help="Forget the login that is kept.")
@_URL
@_CONFIG
def logout(url: str | None, config: Path | None) -> None:
    """Forget the login that is kept for the archive.

    \b
      tciafs logout
    """
    from tciafs.credentials import LoginStore

    _services_url, server = _server(url, config)
    was_there = LoginStore.of_user().drop(server)
    say("logged out" if was_there else "nobody was logged in")


def _server(url: str | None, config: Path | None) -> tuple[str, str]:
    """Return the address of the services, and what names their server among logins."""
    from tciafs.archives.nbia.login import token_url

    settings = load_settings({} if url is None else {"url": url}, file=config)
    return settings.url, token_url(settings.url)


def _logged_in(services_url: str, user: str, password: str) -> "Login":
    import trio

    from tciafs.archives.http.limits import HttpLimits
    from tciafs.archives.nbia.login import Login, Secret, ask_for_tokens

    tokens = trio.run(ask_for_tokens, services_url, Login(user, Secret(password)), HttpLimits())
    return tokens.login
