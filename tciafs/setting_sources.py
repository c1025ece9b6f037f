"""Where the texts of settings come from, and which of them counts.

Precedence: command line, then `-o name=value,...`, then `TCIAFS_NAME`, then the TOML file, then the
default. A text that its setting does not take is a Misuse that names the setting and where it came from.
Defined here and only here: precedence and places. Does no I/O but to read the one file.
"""

import datetime as dt
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tciafs.errors import Misuse
from tciafs.setting_kinds import joined_names
from tciafs.settings import Declaration, Settings, declarations

__all__ = [
    "Given",
    "config_path",
    "given_settings",
    "load_settings",
    "parse_mount_options",
    "settings_from",
    "unknown",
]

IGNORED_MOUNT_OPTIONS = re.compile(
    r"rw|ro|defaults|(no)?(auto|user|users|owner|group|suid|dev|exec|fail|iversion|mand)|_netdev|nosymfollow|([xX]-|comment=).*"
    r"|(no)?(atime|diratime|relatime|strictatime|lazytime)|async|sync|dirsync|silent|loud"
)
"""What mount(8) and /etc/fstab put among the options that is not for us; the mount is read-only anyway."""


@dataclass(frozen=True, slots=True)
class Given:
    """The text that somebody gave for a setting, and where: "option", "environment" or "file".

    `place` names it in a sentence, for example "-o cache_size" or "downloads in /etc/tciafs.toml".
    """

    text: str
    source: str
    place: str


def load_settings(
    options: Mapping[str, str],
    mount_options: str = "",
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Return the settings. `options` are texts from the command line, `mount_options` a `-o` value.

    `file` None means the user's configuration file, which need not exist; one that is named must.
    Raises Misuse.
    """
    return settings_from(given_settings(options, mount_options, environment, file))


def given_settings(
    options: Mapping[str, str],
    mount_options: str = "",
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> dict[str, Given]:
    """Return what of the settings is not left to its default. Takes and raises what `load_settings` does."""
    return {
        **_from_file(file),
        **_from_environment(os.environ if environment is None else environment),
        **parse_mount_options(mount_options),
        **{name: Given(text, "option", f"--{name.replace('_', '-')}") for name, text in options.items()},
    }


def settings_from(given: Mapping[str, Given]) -> Settings:
    """Return the settings of which some are given. Raises Misuse for a text that cannot be used."""
    parsed = {}
    for each in declarations():
        if (one := given.get(each.name)) is not None:
            try:
                parsed[each.name] = each.parse(one.text)
            except ValueError as error:
                raise Misuse(f"{one.place}: {error}, not {one.text!r}") from None
    return Settings(**parsed)


def parse_mount_options(text: str) -> dict[str, Given]:
    """Return the settings in `-o name=value,...`. Raises Misuse for unknown names."""
    known = {each.name: each for each in declarations()}
    values = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        is_of_mount = IGNORED_MOUNT_OPTIONS.fullmatch(part)
        if (name := name.replace("-", "_")) in known and not is_of_mount:
            is_bare_flag = known[name].is_flag and not equals
            values[name] = Given("true" if is_bare_flag else value, "option", f"-o {name}")
        elif not is_of_mount:
            raise Misuse(f"-o {part}: unknown option{_nearest(name)}")
    return values


def unknown(name: str) -> Misuse:
    """Return the error for a word that is the name of no setting, with the nearest that is."""
    return Misuse(f"unknown setting {name}{_nearest(name)}")


def config_path() -> Path:
    """Return where the user's configuration file is, if there is one."""
    import platformdirs  # 6 ms that help need not wait for

    return platformdirs.user_config_path("tciafs") / "config.toml"


def _from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    return {
        each.name: Given(environment[each.variable], "environment", each.variable)
        for each in declarations()
        if environment.get(each.variable)  # empty is how shells say that it is not set
    }


def _from_file(file: Path | None) -> dict[str, Given]:
    import tomllib

    path = file or config_path()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file is None:
            return {}
        raise Misuse(f"the configuration file {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise Misuse(f"the configuration file {path} cannot be read: {error}") from None
    known = {each.name: each for each in declarations()}
    for name in table:
        if name not in known:
            raise Misuse(f"{path}: {unknown(name)}")
    return {
        name: Given(_toml_text(known[name], value, path), "file", f"{name} in {path}")
        for name, value in table.items()
    }


def _toml_text(setting: Declaration, value: object, path: Path) -> str:
    """Return a TOML value as the text that an option would have. Raises Misuse where none would do."""
    name = setting.name
    if setting.is_list and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return joined_names(value)
    if setting.metavar == "DAY" and isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, str):
        return value
    if name == "umask":
        # 0o022 has become 18 here, and who writes 22 does not mean 026.
        raise Misuse(f'umask in {path}: expected an octal mask in quotes such as "022", not {value!r}')
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    raise Misuse(f"{name} in {path}: expected a text, a number, true or false, not {value!r}")


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, [each.name for each in declarations()], n=1)
    return f"; did you mean {close[0]}?" if close else ""
