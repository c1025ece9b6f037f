"""Tokens of the sample archive: who may see the restricted collection.

Defined here and only here: the rule that a request without a token is a guest's, and one with a
token that is not known is refused. Tokens live in memory; nothing here is a secret.
"""

import itertools
from collections.abc import Mapping
from typing import Any

__all__ = ["Logins"]

NO_TOKEN = ("", "Bearer undefined")


class Logins:
    """The one account (None: nobody can log in) and the tokens given out for it."""

    def __init__(self, account: tuple[str, str] | None, life_s: int = 7200) -> None:
        self._account = account
        self._life_s = life_s
        self._access: set[str] = set()
        self._refresh: set[str] = set()
        self._numbers = itertools.count(1)

    def token(self, form: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the answer of the token endpoint to a form, None where it is refused."""
        kind = form.get("grant_type")
        credentials = (form.get("username", ""), form.get("password", ""))
        if kind == "password" and credentials == self._account:
            return self._issue()
        if kind == "refresh_token" and form.get("refresh_token") in self._refresh:
            return self._issue()
        return None

    def _issue(self) -> dict[str, Any]:
        number = next(self._numbers)
        access, refresh = f"sample-access-{number}", f"sample-refresh-{number}"
        self._access.add(access)
        self._refresh.add(refresh)
        return {
            "access_token": access,
            "expires_in": self._life_s,
            "refresh_token": refresh,
            "refresh_expires_in": 2 * self._life_s,
            "token_type": "Bearer",
            "scope": "openid",
        }

    def expire(self) -> None:
        """Make every access token stale, as time would; refresh tokens stay good."""
        self._access.clear()

    def sees_restricted(self, authorization: str) -> bool | None:
        """Return whether the bearer sees restricted data; None where the token is refused."""
        if authorization in NO_TOKEN:
            return False
        scheme, _, token = authorization.partition(" ")
        return True if scheme == "Bearer" and token in self._access else None
