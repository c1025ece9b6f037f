"""Settings from five places: how each kind is read, who wins, and what a mistake is told."""

import contextlib
import dataclasses
import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.errors import Misuse
from tciafs.setting_kinds import joined_names, parse_days, parse_duration, parse_names, parse_size
from tciafs.setting_sources import Given, load_settings, parse_mount_options
from tciafs.settings import Settings, declarations


def loaded(
    options: dict[str, str] | None = None,
    mount_options: str = "",
    environment: dict[str, str] | None = None,
    toml: str = "",
    folder: Path | None = None,
) -> Settings:
    """Load settings, from a file too if there is a folder for it."""
    file = None
    if folder is not None:
        file = folder / "config.toml"
        file.write_text(toml)
    else:
        file = Path("/dev/null")
    return load_settings(options or {}, mount_options, environment or {}, file)


def complaint(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises(Misuse) as raised:
        loaded(*arguments, **keywords)
    return str(raised.value)


# Kinds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1K", 1024),
        ("512M", 512 << 20),
        ("50G", 50 << 30),
        ("50g", 50 << 30),
        ("50GB", 50 << 30),
        ("50GiB", 50 << 30),
        ("50 G", 50 << 30),
        (" 50G ", 50 << 30),
        ("500B", 500),
        ("1.5T", 3 << 39),
        ("0.1K", 102),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_bytes_in_powers_of_1024(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("90", 90),
        ("30s", 30),
        ("10m", 600),
        ("12h", 43_200),
        ("1d", 86_400),
        ("2W", 1_209_600),
        ("1.5h", 5400),
        ("1 d", 86_400),
    ],
)
def test_durations_are_seconds(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "G", "-1G", "1X", "1GG", "1,5G", "1e3", "one", "0x10", "1 2", "٣", "1iB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 50G"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "d", "-1d", "1y", "1dd", "1db", "1hours", "P1D", "1:30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as 1d, 12h or 30s"):
        parse_duration(text)


@given(st.integers(0, 10**15), st.sampled_from("KMGT"))
def test_a_size_with_a_unit_is_exact(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * 1024 ** ("KMGT".index(unit) + 1)


GOOD = [
    ("archive", "sample", "sample"),
    ("url", "https://example.org/x", "https://example.org/x"),
    ("api", "v1", "v1"),
    ("cache_dir", "/var/cache/x", Path("/var/cache/x")),
    ("cache_size", "5G", 5 << 30),
    ("naming", "classic", "classic"),
    ("downloads", "1", 1),
    ("retries", "0", 0),
    ("listing", "names", "names"),
    ("listing_ttl", "0", 0),
    ("offline", "true", True),
    ("offline", "no", False),
    ("connect_timeout", "1s", 1),
    ("allow_other", "YES", True),
    ("allow_other", "0", False),
    ("uid", "0", 0),
    ("gid", "65534", 65534),
    ("umask", "022", 0o022),
    ("umask", "0", 0),
    ("umask", "0777", 0o777),
    ("log_level", "debug", "debug"),
]


@pytest.mark.parametrize(("name", "text", "expected"), GOOD)
def test_each_kind_is_read_from_options_mount_options_and_environment(
    name: str, text: str, expected: object
) -> None:
    assert getattr(loaded({name: text}), name) == expected
    assert getattr(loaded(mount_options=f"{name}={text}"), name) == expected
    assert getattr(loaded(environment={f"TCIAFS_{name.upper()}": text}), name) == expected


BAD = [
    ("archive", "xnat", "expected one of auto, nbia, idc, sample"),
    ("api", "v2", "expected one of auto, v4, v1"),
    ("cache_size", "lots", "expected a size such as 50G"),
    ("naming", "Classic", "expected one of descriptive, classic"),
    ("downloads", "0", "expected a whole number of at least 1"),
    ("downloads", "-1", "expected a whole number"),
    ("downloads", "2.5", "expected a whole number"),
    ("downloads", "9" * 5000, "expected a whole number"),
    ("retries", "many", "expected a whole number"),
    ("listing", "all", "expected one of auto, names, exact"),
    ("listing_ttl", "soon", "expected a time such as 1d, 12h or 30s"),
    ("offline", "perhaps", "expected true or false"),
    ("stall_timeout", "0", "expected a time of at least 1s"),
    ("connect_timeout", "0s", "expected a time of at least 1s"),
    ("listing_timeout", "0.5s", "expected a time of at least 1s"),
    ("uid", "root", "expected a whole number"),
    ("uid", "99999999999", "expected a number below 4294967295"),
    ("umask", "088", "expected an octal mask such as 022"),
    ("umask", "07777", "expected an octal mask such as 022"),
    ("cache_dir", "~no-such-user-here/x", "expected a path in the home folder of a user that exists"),
    ("log_level", "loud", "expected one of error, warning, info, debug"),
]


@pytest.mark.parametrize(("name", "text", "expected"), BAD)
def test_a_wrong_value_is_refused_with_its_origin_what_was_expected_and_what_came(
    name: str, text: str, expected: str
) -> None:
    option = "--" + name.replace("_", "-")
    assert complaint({name: text}) == f"{option}: {expected}, not {text!r}"
    assert complaint(mount_options=f"{name}={text}") == f"-o {name}: {expected}, not {text!r}"
    variable = f"TCIAFS_{name.upper()}"
    assert complaint(environment={variable: text}) == f"{variable}: {expected}, not {text!r}"


def test_a_wrong_value_in_a_file_is_refused_with_the_file(tmp_path: Path) -> None:
    text = complaint(toml='cache_size = "lots"', folder=tmp_path)
    assert text == f"cache_size in {tmp_path}/config.toml: expected a size such as 50G, not 'lots'"


@pytest.mark.parametrize("option", ["cache_dir", "log_file"])
def test_an_empty_path_is_refused_and_not_taken_for_the_current_folder(option: str) -> None:
    assert complaint({option: ""}).endswith("expected a path, not ''")


def test_paths_are_absolute_and_know_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert loaded({"cache_dir": "sub/folder"}).cache_dir == tmp_path / "sub" / "folder"
    assert loaded({"cache_dir": "~/cache"}).cache_dir == Path("/home/somebody/cache")


# Who wins


def test_without_any_word_all_settings_have_their_defaults() -> None:
    settings = loaded()
    assert settings == Settings()
    assert settings.cache_size == 50 << 30
    assert settings.listing_ttl == 86_400
    assert (settings.offline, settings.cache_dir, settings.uid, settings.umask) == (False, None, None, 0o022)


def test_the_command_line_wins_over_mount_options_over_environment_over_file(tmp_path: Path) -> None:
    toml = "downloads = 1\nretries = 1\nnaming = 'classic'\napi = 'v1'"
    environment = {"TCIAFS_DOWNLOADS": "2", "TCIAFS_RETRIES": "2", "TCIAFS_NAMING": "descriptive"}
    settings = loaded({"downloads": "4"}, "downloads=3,retries=3", environment, toml, tmp_path)
    assert (settings.downloads, settings.retries) == (4, 3)
    assert (settings.naming, settings.api) == ("descriptive", "v1")


def test_a_value_that_loses_is_not_even_looked_at(tmp_path: Path) -> None:
    assert loaded({"downloads": "4"}, environment={"TCIAFS_DOWNLOADS": "many"}).downloads == 4


def test_an_empty_variable_counts_as_not_set() -> None:
    empty = {each.variable: "" for each in declarations()}
    assert loaded(environment=empty) == Settings()


def test_variables_of_others_are_none_of_our_business() -> None:
    assert (
        loaded(environment={"TCIAFS_CONTRACT_URL": "x", "DOWNLOADS": "7", "tciafs_offline": "1"})
        == Settings()
    )


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCIAFS_DOWNLOADS", "9")
    assert load_settings({}, file=Path("/dev/null")).downloads == 9


# -o


def test_mount_options_are_separated_by_commas_and_may_have_dashes_or_underscores() -> None:
    settings = loaded(mount_options="cache-size=5G,listing_ttl=12h, naming=classic ,")
    assert (settings.cache_size, settings.listing_ttl, settings.naming) == (5 << 30, 43_200, "classic")


def test_a_flag_among_mount_options_needs_no_value() -> None:
    assert loaded(mount_options="allow_other,offline=false").allow_other
    assert not loaded(mount_options="allow_other,offline=false").offline
    assert complaint(mount_options="allow_other=").endswith("expected true or false, not ''")


def test_a_setting_that_is_no_flag_needs_its_value() -> None:
    assert complaint(mount_options="downloads") == "-o downloads: expected a whole number, not ''"


FSTAB = [
    "rw",
    "ro",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "nofail",
    "_netdev",
    "async",
    "sync",
    "dirsync",
    "silent",
    "loud",
    "mand",
    "nomand",
    "x-systemd.automount",
    "x-systemd.idle-timeout=60",
    "x-gvfs-hide",
    "comment=anything",
]


@pytest.mark.parametrize("option", FSTAB)
def test_what_fstab_lines_say_to_mount_is_ignored(option: str) -> None:
    assert parse_mount_options(option) == {}


def test_a_whole_line_of_fstab_is_understood() -> None:
    line = "defaults,_netdev,nofail,x-systemd.requires=network.target,allow_other,uid=1000,cache_size=1T,ro"
    settings = loaded(mount_options=line)
    assert (settings.allow_other, settings.uid, settings.cache_size) == (True, 1000, 1 << 40)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("cachesize=5G", "-o cachesize=5G: unknown option; did you mean cache_size?"),
        ("ofline", "-o ofline: unknown option; did you mean offline?"),
        ("nonsense", "-o nonsense: unknown option"),
        ("rwx", "-o rwx: unknown option"),
        ("=5", "-o =5: unknown option"),
    ],
)
def test_an_unknown_mount_option_is_refused_with_the_nearest_that_exists(option: str, expected: str) -> None:
    assert complaint(mount_options=f"ro,{option}") == expected


@given(st.text(max_size=30))
def test_no_text_of_mount_options_does_anything_but_parse_or_complain(text: str) -> None:
    values: dict[str, Given] = {}
    with contextlib.suppress(Misuse):
        values = parse_mount_options(text)
    assert values.keys() <= {each.name for each in declarations()}


# The file


def test_toml_values_have_their_own_types(tmp_path: Path) -> None:
    toml = 'downloads = 7\noffline = true\nallow_other = false\ncache_size = "50G"\n'
    toml += 'listing_ttl = 90\numask = "027"'
    settings = loaded(toml=toml, folder=tmp_path)
    assert (settings.downloads, settings.offline, settings.allow_other) == (7, True, False)
    assert (settings.cache_size, settings.listing_ttl, settings.umask) == (50 << 30, 90, 0o027)


@pytest.mark.parametrize("mask", ["0o027", "27", "true"])
def test_a_umask_in_a_file_is_in_quotes_since_a_number_would_be_another_one(
    mask: str, tmp_path: Path
) -> None:
    text = complaint(toml=f"umask = {mask}", folder=tmp_path)
    assert 'expected an octal mask in quotes such as "022"' in text


@pytest.mark.parametrize("value", ["[1, 2]", "{ a = 1 }", "2020-01-01"])
def test_a_value_that_is_no_text_number_or_truth_is_refused(value: str, tmp_path: Path) -> None:
    text = complaint(toml=f"downloads = {value}", folder=tmp_path)
    assert text.startswith(f"downloads in {tmp_path}/config.toml: expected a text, a number, true or false")


def test_an_unknown_setting_in_a_file_is_refused_with_the_nearest_that_exists(tmp_path: Path) -> None:
    text = complaint(toml="dowloads = 7", folder=tmp_path)
    assert text == f"{tmp_path}/config.toml: unknown setting dowloads; did you mean downloads?"
    assert complaint(toml="xyzzy = 7", folder=tmp_path) == f"{tmp_path}/config.toml: unknown setting xyzzy"


@pytest.mark.parametrize("toml", ["downloads = ", "= 5", "downloads = 1\ndownloads = 2"])
def test_a_file_that_is_no_toml_is_refused(toml: str, tmp_path: Path) -> None:
    text = complaint(toml=toml, folder=tmp_path)
    assert text.startswith(f"the configuration file {tmp_path}/config.toml cannot be read: ")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Misuse, match="cannot be read"):
        load_settings({}, environment={}, file=tmp_path / "config.toml")


def test_a_folder_for_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"cannot be read: .*Is a directory"):
        load_settings({}, environment={}, file=tmp_path)


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=f"the configuration file {tmp_path}/none.toml does not exist"):
        load_settings({}, environment={}, file=tmp_path / "none.toml")


def test_the_users_own_file_is_read_and_need_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_settings({}, environment={}) == Settings()
    (tmp_path / "tciafs").mkdir()
    (tmp_path / "tciafs" / "config.toml").write_text("downloads = 8")
    assert load_settings({}, environment={}).downloads == 8


# Declared once


def test_every_field_is_declared_with_what_a_user_needs_to_know() -> None:
    declared = {each.name: each for each in declarations()}
    assert list(declared) == [each.name for each in dataclasses.fields(Settings)]
    for name, each in declared.items():
        assert re.fullmatch(r"[A-Z].{10,}\.", each.help), name
        assert each.option == "--" + name.replace("_", "-")
        assert each.variable == "TCIAFS_" + name.upper()
        assert each.is_flag == isinstance(getattr(Settings(), name), bool)
        assert bool(each.metavar) != each.is_flag
        assert set(each.choices) == (set(each.metavar.split("|")) if "|" in each.metavar else set())


def test_every_default_that_is_shown_is_the_default_that_holds() -> None:
    for each in declarations():
        if each.default_text:
            assert each.parse(each.default_text) == getattr(Settings(), each.name)
            assert getattr(loaded({each.name: each.default_text}), each.name) == getattr(
                Settings(), each.name
            )


# Lists and days


@given(st.lists(st.text().map(str.strip).filter(bool)))
def test_any_words_survive_being_written_as_one_text(words: list[str]) -> None:
    assert parse_names(joined_names(words)) == tuple(words)


def test_a_list_is_written_with_colons_or_as_a_list(tmp_path: Path) -> None:
    assert loaded({"collection": r"A B:C\:D:"}).collection == ("A B", "C:D")
    assert loaded(toml='collection = ["A B", "C:D"]', folder=tmp_path).collection == ("A B", "C:D")
    assert loaded(environment={"TCIAFS_MODALITY": "CT:MR"}).modality == ("CT", "MR")
    assert loaded(mount_options="body-part=CHEST:HEAD").body_part == ("CHEST", "HEAD")
    assert Settings().collection == ()


def test_what_is_no_list_cannot_be_written_as_one(tmp_path: Path) -> None:
    assert "expected a text" in complaint(toml='naming = ["classic"]', folder=tmp_path)


def test_manifests_are_paths_wherever_the_daemon_stands() -> None:
    assert loaded({"manifest": "/a.tcia:b.csv"}).manifest == (Path("/a.tcia"), Path.cwd() / "b.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-01-01..2020-12-31", (dt.date(2020, 1, 1), dt.date(2020, 12, 31))),
        ("2020-01-01..", (dt.date(2020, 1, 1), None)),
        (" .. 2020-12-31", (None, dt.date(2020, 12, 31))),
        ("2020-02-29", (dt.date(2020, 2, 29), dt.date(2020, 2, 29))),
    ],
)
def test_days_are_from_one_to_another(text: str, expected: Any) -> None:
    assert parse_days(text) == expected


@pytest.mark.parametrize("text", ["", "..", "2020", "2021-02-29..", "2020-12-31..2020-01-01", "01-31-2020"])
def test_what_are_no_days_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_days(text)


def test_a_day_may_be_a_day_of_the_file(tmp_path: Path) -> None:
    released = loaded(toml="released_since = 2026-01-31", folder=tmp_path).released_since
    assert released == dt.date(2026, 1, 31)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().downloads = 5  # type: ignore[misc]
