"""`tciafs config`: each setting's value and where it comes from. Nothing is mounted."""

import json
from pathlib import Path

import pytest

from tciafs.settings import declarations
from tests.command_line import Result, Run, command_line, without_settings


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `tciafs config` with no settings from around it but those of tmp_path/tciafs/config.toml."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    without_settings(monkeypatch)
    return command_line(monkeypatch, capfd, "config")


def write_config(folder: Path, toml: str) -> Path:
    file = folder / "tciafs" / "config.toml"
    file.parent.mkdir()
    file.write_text(toml)
    return file


def origins(result: Result) -> dict[str, tuple[str, str]]:
    """Return source and place of each setting in an answer in JSON."""
    assert (result.code, result.err) == (0, "")
    return {
        name: (each["source"], each["place"]) for name, each in json.loads(result.out)["settings"].items()
    }


def test_all_settings_are_shown_and_where_the_file_would_be(run: Run, tmp_path: Path) -> None:
    result = run()
    lines = result.out.splitlines()
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in lines[:-2]] == [each.name for each in declarations()]
    assert "cache_size       default  50G" in lines
    assert "offline          default  false" in lines
    assert "user             default  -" in lines
    assert lines[-1] == f"The configuration file is {tmp_path}/tciafs/config.toml, which is not there."


def test_the_first_place_that_names_a_setting_is_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_config(tmp_path, "downloads = 1\nretries = 1\nread_ahead = 1\nmax_images = 1")
    monkeypatch.setenv("TCIAFS_DOWNLOADS", "2")
    monkeypatch.setenv("TCIAFS_RETRIES", "2")
    monkeypatch.setenv("TCIAFS_READ_AHEAD", "2")
    words = ("-o", "downloads=3,retries=3", "--downloads", "4", "--json")
    found = origins(run(*words))
    assert found["downloads"] == ("option", "--downloads")
    assert found["retries"] == ("option", "-o retries")
    assert found["read_ahead"] == ("environment", "TCIAFS_READ_AHEAD")
    assert found["max_images"] == ("file", f"max_images in {file}")
    assert found["min_images"] == ("default", "default")
    settings = json.loads(run(*words).out)["settings"]
    names = ("downloads", "retries", "read_ahead", "max_images", "min_images")
    assert [settings[name]["value"] for name in names] == [4, 3, 2, 1, None]


def test_settings_that_are_named_are_shown_alone(run: Run, tmp_path: Path) -> None:
    write_config(tmp_path, 'cache_size = "5G"')
    assert run("--cache-size", "1G", "cache_size").out == "cache_size  --cache-size  1G\n"
    assert run("cache-size", "--", "--retries").out == (
        "cache_size  configuration file  5G\nretries     default             4\n"
    )


def test_json_has_values_for_scripts_and_texts_as_they_are_written(run: Run, tmp_path: Path) -> None:
    words = ("--cache-size", "5G", "--cache-dir", "/c", "--study-date", "2020-01-01..", "--modality", "CT")
    result = run(*words, "--json")
    assert result.out.count("\n") == 1
    answer = json.loads(result.out)
    assert answer["file"] == f"{tmp_path}/tciafs/config.toml"
    shown = {name: (each["value"], each["text"]) for name, each in answer["settings"].items()}
    assert shown["cache_size"] == (5 << 30, "5G")
    assert shown["cache_dir"] == ("/c", "/c")
    assert shown["study_date"] == (["2020-01-01", None], "2020-01-01..")
    assert shown["modality"] == (["CT"], "CT")
    assert shown["offline"] == (False, "false")
    assert shown["user"] == (None, "")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_login_in_an_address_is_not_shown(form: tuple[str, ...], run: Run) -> None:
    result = run("url", "--url", "https://me:se@cret@example.org/services", *form)
    assert "https://***@example.org/services" in result.out
    assert "cret" not in result.out
    assert "me:" not in result.out


def test_what_a_terminal_could_obey_is_escaped(run: Run) -> None:
    assert run("collection", "--collection", "a\x1b[2J").out == "collection  --collection  a\\x1b[2J\n"


@pytest.mark.parametrize(
    ("words", "toml", "said"),
    [
        (("cache_sise",), "", "unknown setting cache_sise; did you mean cache_size?"),
        ((), "dowloads = 7", "config.toml: unknown setting dowloads; did you mean downloads?"),
        (("--downloads", "x"), "", "--downloads: expected a whole number, not 'x'."),
        (("-o", "ofline"), "", "-o ofline: unknown option; did you mean offline?"),
    ],
)
def test_what_no_mount_would_take_is_wrong_use(
    words: tuple[str, ...], toml: str, said: str, run: Run, tmp_path: Path
) -> None:
    write_config(tmp_path, toml)
    result = run(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("tciafs: ")
    assert result.err.endswith(f"{said} See tciafs --help.\n")


# Colours


def test_what_is_no_default_is_bold_on_a_terminal_unless_nobody_wants_colours(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    words = ("downloads", "retries", "--downloads", "9")
    plain = "downloads  --downloads  9"
    assert run(*words).out == f"\x1b[1m{plain}\x1b[0m\nretries    default      4\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(*words).out == f"{plain}\nretries    default      4\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert run(*words).out.startswith(plain)
