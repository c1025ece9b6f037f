"""The command line: what words mean, exit codes, one clear sentence, and that help is fast.

What a command starts is replaced here: nothing is mounted. The daemon has tests of its own.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tciafs import __version__, agreement, cli, launching
from tciafs.errors import AccessDenied, Misuse, TciafsError, Unreachable, Unusable
from tciafs.filesystem import mountpoint as mountpoints
from tciafs.settings import Settings, declarations
from tests.command_line import Result, Run, command_line, without_settings


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in this process, with no settings from around it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    without_settings(monkeypatch)
    return command_line(monkeypatch, capfd)


class Mounts:
    """What was mounted, how, and with which settings; `failure` is what mounting raises.

    The user `has_agreed` to the data usage policy.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounted: list[tuple[Path, bool]] = []
        self.settings: list[Settings] = []
        self.failure: BaseException | None = None
        self.has_agreed = True
        monkeypatch.setattr(mountpoints, "prepare", lambda path: path)
        monkeypatch.setattr(agreement, "has_agreed", lambda: self.has_agreed)
        monkeypatch.setattr(launching, "start", self._start)
        monkeypatch.setattr(launching, "run_in_foreground", self._run)

    def _note(self, settings: Settings, mountpoint: Path, is_foreground: bool) -> None:
        if self.failure is not None:
            raise self.failure
        self.mounted.append((mountpoint, is_foreground))
        self.settings.append(settings)

    def _start(self, settings: Settings, mountpoint: Path) -> str:
        self._note(settings, mountpoint, False)
        return f"{mountpoint}: 6 collections."

    def _run(self, settings: Settings, mountpoint: Path, _handed: int | None) -> None:
        self._note(settings, mountpoint, True)


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Mounts:
    return Mounts(monkeypatch)


# The data usage policy


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    terminal = io.StringIO(typed)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_without_a_terminal_the_archive_is_not_mounted_before_the_policy_is_agreed_to(
    run: Run, mounts: Mounts
) -> None:
    mounts.has_agreed = False
    result = run("/mnt/tcia")
    assert result.code == 2
    assert "the data usage policy of TCIA has not been agreed to: https://" in result.err
    assert "Read it, then run: tciafs agree;" in result.err
    assert not mounts.mounted


def test_on_a_terminal_one_is_asked_and_the_answer_is_kept(
    run: Run, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts.has_agreed = False
    on_a_terminal(monkeypatch, "y\n")
    result = run("/mnt/tcia")
    assert result.code == 0
    assert "https://www.cancerimagingarchive.net/" in result.err
    assert mounts.mounted
    assert (tmp_path / "share" / "tciafs" / "policy.json").exists()


def test_who_does_not_agree_mounts_nothing(run: Run, mounts: Mounts, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts.has_agreed = False
    on_a_terminal(monkeypatch, "n\n")
    assert run("/mnt/tcia").code == 2
    assert not mounts.mounted


@pytest.mark.parametrize(
    "words",
    [
        ("/mnt/tcia", "--agree-to-policy"),
        ("/mnt/tcia", "-o", "agree_to_policy"),
        ("/mnt/tcia", "--url", "http://127.0.0.1:8042/nbia-api/services"),
        ("demo", "/mnt/tcia"),
    ],
)
def test_nobody_is_asked_who_said_so_or_mounts_what_is_not_of_tcia(
    run: Run, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    mounts.has_agreed = False
    assert run(*words).code == 0


def test_agree_is_a_command(run: Run, tmp_path: Path) -> None:
    result = run("agree")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("You have agreed to the data usage policy of TCIA: https://")
    assert agreement.has_agreed(tmp_path / "share" / "tciafs")


# What words mean


def test_a_word_that_is_no_command_is_a_mount_point(run: Run, mounts: Mounts) -> None:
    assert run("/mnt/tcia") == Result(0, "/mnt/tcia: 6 collections.\n", "")
    assert mounts.mounted == [(Path("/mnt/tcia"), False)]


@pytest.mark.parametrize("name", ["status", "demo", "mount", "umount", "prefetch"])
def test_a_folder_that_is_called_as_a_command_is_written_with_a_dot(
    run: Run, mounts: Mounts, name: str
) -> None:
    assert run(f"./{name}").code == 0
    assert mounts.mounted == [(Path(name), False)]


def test_a_line_of_etc_fstab_has_a_source_before_the_mount_point(run: Run, mounts: Mounts) -> None:
    assert run("tcia", "/mnt/tcia", "-o", "ro,_netdev,dev,suid,cache_size=1G").code == 0
    assert mounts.mounted == [(Path("/mnt/tcia"), False)]
    assert mounts.settings[0].cache_size == 1 << 30


def test_mount_is_the_command_that_a_mount_point_alone_stands_for(run: Run, mounts: Mounts) -> None:
    assert run("mount", "/mnt/tcia").code == 0
    assert run("mount", "umount").code == 0
    assert [path for path, _ in mounts.mounted] == [Path("/mnt/tcia"), Path("umount")]


@pytest.mark.parametrize("flag", ["-f", "--foreground"])
def test_in_the_foreground_the_program_stays(run: Run, mounts: Mounts, flag: str) -> None:
    assert run("/mnt/tcia", flag).code == 0
    assert mounts.mounted == [(Path("/mnt/tcia"), True)]


@pytest.mark.parametrize(
    "words",
    [
        ("--cache-size", "5G", "--offline", "/mnt/tcia"),
        ("/mnt/tcia", "--cache-size", "5G", "--offline"),
        ("--cache-size=5G", "/mnt/tcia", "--offline"),
        ("mount", "--offline", "/mnt/tcia", "--cache-size", "5G"),
        ("/mnt/tcia", "-o", "cache_size=5G,offline"),
        ("-o", "cache-size=5G", "-o", "offline,rw", "/mnt/tcia"),
    ],
)
def test_options_stand_before_or_after_the_mount_point(
    run: Run, mounts: Mounts, words: tuple[str, ...]
) -> None:
    assert run(*words).code == 0
    assert mounts.mounted == [(Path("/mnt/tcia"), False)]
    assert (mounts.settings[0].cache_size, mounts.settings[0].offline) == (5 << 30, True)


def test_after_two_dashes_a_mount_point_may_begin_with_one(run: Run, mounts: Mounts) -> None:
    assert run("--", "-mnt").code == 0
    assert mounts.mounted == [(Path("-mnt"), False)]


ARCHIVES = {"archive", "url", "api", "idc_url", "idc_index", "idc_all", "idc_version"}
"""Settings that say which archive it is, and which of it."""


def test_every_setting_is_an_option_of_mount_and_of_demo_but_for_which_archive(run: Run) -> None:
    for command in ("mount", "demo"):
        words = run(command, "--help").out.split()
        absent = {each.name for each in declarations() if each.option not in words}
        assert absent == (set() if command == "mount" else ARCHIVES)


def test_without_options_all_settings_are_the_defaults(run: Run, mounts: Mounts) -> None:
    run("/mnt/tcia")
    assert mounts.settings == [Settings()]


def test_a_configuration_file_can_be_named(run: Run, mounts: Mounts, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("downloads = 9")
    assert run("/mnt/tcia", "--config", str(tmp_path / "my.toml")).code == 0
    assert mounts.settings[0].downloads == 9
    result = run("/mnt/tcia", "--config", str(tmp_path / "none.toml"))
    assert (result.code, "does not exist" in result.err) == (2, True)


def test_a_mount_point_that_is_no_unicode_is_mounted_and_named_as_it_is(run: Run, mounts: Mounts) -> None:
    assert run("/mnt/\udcff").code == 0
    assert mounts.mounted == [(Path("/mnt/\udcff"), False)]


# The demo


def test_the_demo_mounts_the_sample_in_a_new_folder_and_says_where(run: Run, mounts: Mounts) -> None:
    result = run("demo")
    ((folder, is_foreground),) = mounts.mounted
    try:
        assert folder.is_dir()
        assert not is_foreground
        assert mounts.settings[0].archive == "sample"
        assert f"Look around in {folder}, then: tciafs umount {folder}" in result.out
        assert (result.code, result.err) == (0, "")
    finally:
        folder.rmdir()


def test_the_demo_makes_the_folder_it_is_given(run: Run, mounts: Mounts, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mnt"
    assert run("demo", str(folder)).code == 0
    assert folder.is_dir()
    assert mounts.settings[0].archive == "sample"


def test_a_demo_that_could_not_be_mounted_leaves_no_folder_behind(
    run: Run, mounts: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mounts.failure = Unusable("no FUSE here")
    assert run("demo").code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_demo_in_the_foreground_clears_its_folder_away_at_the_end(
    run: Run, mounts: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = run("demo", "-f")
    assert "Look around" not in result.out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_user_is_never_removed(run: Run, mounts: Mounts, tmp_path: Path) -> None:
    mounts.failure = Unusable("no FUSE here")
    assert run("demo", str(tmp_path / "mine")).code == 3
    assert (tmp_path / "mine").is_dir()


def test_a_demo_on_a_file_or_below_one_is_unusable(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoints, "require_fuse", lambda: None)
    (tmp_path / "file").touch()
    assert run("demo", str(tmp_path / "file")) == Result(3, "", f"tciafs: {tmp_path}/file is not a folder\n")
    result = run("demo", str(tmp_path / "file" / "below"))
    assert result == Result(3, "", f"tciafs: {tmp_path}/file/below could not be made: Not a directory\n")


# Unmounting


def test_umount_unmounts_and_says_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    unmounted: list[Path] = []

    def unmount(path: Path) -> Path:
        unmounted.append(path)
        return path

    monkeypatch.setattr(mountpoints, "unmount", unmount)
    assert run("umount", "/mnt/tcia") == Result(0, "", "")
    assert unmounted == [Path("/mnt/tcia")]


def test_umount_where_nothing_is_mounted_is_wrong_use(run: Run, tmp_path: Path) -> None:
    result = run("umount", str(tmp_path))
    assert result == Result(2, "", f"tciafs: nothing is mounted at {tmp_path}. See tciafs --help.\n")


# Failing


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        (TciafsError("it failed"), 1, f"it failed. {TciafsError.hint}"),
        (Unreachable("no route"), 1, f"no route. {Unreachable.hint}"),
        (Misuse("a bad address"), 2, "a bad address. See tciafs --help."),
        (Unusable("/mnt is not empty"), 3, "/mnt is not empty"),
        (AccessDenied("not for guests"), 4, f"not for guests. {AccessDenied.hint}"),
        (KeyError("surprise"), 1, f"KeyError: 'surprise'. {TciafsError.hint}"),
    ],
)
def test_a_failure_is_one_sentence_on_stderr_and_an_exit_code(
    run: Run, mounts: Mounts, failure: Exception, code: int, sentence: str
) -> None:
    mounts.failure = failure
    assert run("/mnt/tcia") == Result(code, "", f"tciafs: {sentence}\n")


def test_a_traceback_comes_only_with_log_level_debug(run: Run, mounts: Mounts) -> None:
    mounts.failure = KeyError("surprise")
    result = run("/mnt/tcia", "--log-level", "debug")
    assert result.err.startswith("Traceback (most recent call last):")
    assert result.err.endswith(f"tciafs: KeyError: 'surprise'. {TciafsError.hint}\n")
    assert result.code == 1


def test_ctrl_c_ends_it_as_shells_expect(run: Run, mounts: Mounts) -> None:
    mounts.failure = KeyboardInterrupt()
    result = run("/mnt/tcia")
    assert (result.code, result.err.strip()) == (130, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--ofline", "/mnt"), r"No such option '?--ofline'?\. .*--offline.*\? See tciafs mount --help\."),
        (("statsu",), r"statsu is neither a command nor a folder; did you mean tciafs status\? See .*\."),
        (("unmount", "/mnt"), r"unmount is neither a command nor a folder; did you mean tciafs umount\? .*"),
        (("/other", "/mnt"), r"Got unexpected extra argument \(/mnt\)\. See tciafs mount --help\."),
        (
            ("--offline", "demo", "/mnt"),
            r"Got unexpected extra argument \(/mnt\)\. See tciafs mount --help\.",
        ),
        (
            ("x", "/mnt", "/other", "-o", "ro"),
            r"Got unexpected extra argument \(/other\)\. See tciafs mount --help\.",
        ),
        (("mount",), r"Missing argument 'MOUNTPOINT'\. See tciafs mount --help\."),
        (("",), r"the mount point is an empty word\. See tciafs --help\."),
        (("umount",), r"Missing argument 'MOUNTPOINT'\. See tciafs umount --help\."),
        (
            ("/mnt", "--downloads"),
            r"Option '--downloads' requires an argument\. See tciafs( mount)? --help\.",
        ),
        (
            ("/mnt", "--downloads", "no"),
            r"--downloads: expected a whole number, not 'no'\. See tciafs --help\.",
        ),
        (("/mnt", "-o", "sizee=5"), r"-o sizee=5: unknown option.* See tciafs --help\."),
        (
            ("/mnt", "-o", "cachesize=5G"),
            r"-o cachesize=5G: .* did you mean cache_size\? See tciafs --help\.",
        ),
        (("umount", "--lazy", "/mnt"), r"No such option '?--lazy'?\. See tciafs umount --help\."),
    ],
)
def test_wrong_use_is_one_sentence_that_says_where_help_is(
    run: Run, mounts: Mounts, words: tuple[str, ...], sentence: str
) -> None:
    result = run(*words)
    assert re.fullmatch(f"tciafs: {sentence}\n", result.err), result.err
    assert (result.code, result.out) == (2, "")
    assert mounts.mounted == []


def test_the_commands_of_the_contract_are_there() -> None:
    contract = (
        "demo umount status prefetch du pause resume refresh pin unpin evict verify login logout doctor"
    )
    assert set(contract.split()) <= cli.commands.commands.keys()


def test_each_command_has_the_name_that_it_is_found_by() -> None:
    assert [each.name for each in cli.commands.commands.values()] == list(cli.commands.commands)


# Help


def test_help_teaches_the_three_things_to_do_first(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for line in ("tciafs /mnt/tcia ", "tciafs umount /mnt/tcia", "tciafs demo ", "tciafs mount --help "):
        assert f"    {line}" in result.out
    assert "Exit codes: 0 fine" in result.out
    assert run("-h") == run() == result


def test_each_command_has_a_line_of_help_that_is_not_cut_off(run: Run) -> None:
    lines = run("--help").out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) == sum(not each.hidden for each in cli.commands.commands.values())
    assert [line for line in lines if not line.endswith(".") or line.endswith("..")] == []


@pytest.mark.parametrize("command", ["mount", "demo", "umount", "status", "refresh"])
def test_each_command_has_help(run: Run, command: str) -> None:
    assert run(command, "--help").out.startswith(f"Usage: tciafs {command} ")


def test_help_of_mount_shows_defaults_and_choices(run: Run) -> None:
    text = " ".join(run("mount", "--help").out.split())
    assert "--cache-size SIZE Most bytes of series to keep on disk. [default: 50G]" in text
    assert "--naming descriptive|classic" in text
    assert "--offline Never ask the archive" in text


def test_version_is_the_packages(run: Run) -> None:
    assert run("--version") == Result(0, f"tciafs, version {__version__}\n", "")


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tciafs", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"tciafs, version {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [["--help"], ["mount", "--help"], ["prefetch"], ["status", "/nonexistent"], ["umount", "/nonexistent"]],
)
def test_help_and_small_commands_load_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys, tciafs.cli\nsys.argv = ['tciafs', *sys.argv[1:]]\n"
        "try: tciafs.cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "click" in loaded
    heavy = {"trio", "httpx", "pyfuse3", "pydicom", "numpy", "diskcache", "starlette", "asyncio"}
    if words[0] != "status":  # what it shows are structs, which cost less than dataclasses, msgspec included
        heavy |= {"msgspec"}
    assert loaded.isdisjoint(heavy)
