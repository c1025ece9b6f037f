"""Completion with TAB: what is offered, and that real shells take it."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from tciafs import cli
from tciafs.filesystem import mountpoint as mountpoints
from tests.mounting import marked_environment

PATIENCE_S = 60.0
ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][0-9A-B]|[=>])")
MOUNT = "/mnt/only-here"


@pytest.fixture(autouse=True)
def _mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which one mount is ours and one is somebody else's."""
    ours, others = os.geteuid(), os.geteuid() + 1
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 254:0 / / rw - ext4 /dev/root rw\n"
        f"101 22 0:50 / {MOUNT} ro - fuse.tciafs tciafs:host ro,user_id={ours},group_id=0\n"
        f"102 22 0:51 / /mnt/theirs ro - fuse.tciafs tciafs:host ro,user_id={others},group_id=0\n"
    )
    monkeypatch.setattr(mountpoints, "MOUNTINFO", table)


def offered(*words: str) -> list[str]:
    """Return what the last word may become; a type where the shell completes it."""
    asked = ShellComplete(cli.commands, {}, "tciafs", "_TCIAFS_COMPLETE")
    found = asked.get_completions(list(words[:-1]), words[-1])
    return [str(each.value) if each.type == "plain" else f"<{each.type}>" for each in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stat"], ["status"]),
        (["log"], ["log-level", "login", "logout"]),
        (["statsu", ""], ["<dir>"]),
        (["/m"], ["<dir>"]),
        (["--cac"], ["--cache-dir", "--cache-size"]),
        (["--vers"], ["--version"]),
        (["/mnt/tcia", "--offl"], ["--offline"]),
        (["--naming", ""], ["descriptive", "classic"]),
        (["mount", "--naming", "cl"], ["classic"]),
        (["mount", "--cache-dir", ""], ["<dir>"]),
        (["mount", "--manifest", ""], ["<file>"]),
        (["mount", ""], ["<dir>"]),
        (["umount", ""], [MOUNT]),
        (["umount", "/nowhere"], ["<dir>"]),
        (["pause", "/mnt/"], [MOUNT]),
        (["status", ""], [MOUNT]),
        (["log-level", "de"], ["debug"]),
        (["log-level", "debug", "/m"], [MOUNT]),
        (["prefetch", "--mount", ""], [MOUNT]),
        (["prefetch", "/mnt/only-here/L"], ["<file>"]),
        (["config", "cache_"], ["cache_dir", "cache_size"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_a_word_is_completed(words: list[str], expected: list[str]) -> None:
    assert offered(*words) == expected


def arguments(command: click.Command, name: str) -> Iterator[tuple[str, click.Parameter]]:
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from arguments(each, f"{name} {below}".strip())
    elif not command.hidden:
        yield from ((name, each) for each in command.params if isinstance(each, click.Argument))


NOT_OFFERED = {("manifest remove", "name")}
"""What only a daemon could tell."""


@pytest.mark.parametrize(("command", "argument"), list(arguments(cli.commands, "")))
def test_every_argument_is_completed(command: str, argument: click.Argument) -> None:
    with cli.commands.make_context("tciafs", [], resilient_parsing=True) as context:
        is_completed = bool(argument.shell_complete(context, ""))
    assert is_completed or (command, argument.name) in NOT_OFFERED


# Real shells


def shells_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which all that a shell keeps for its user is in a folder."""
    names = ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"PATH": path, "TERM": "dumb", "PS1": "> "}
    return marked_environment("shell") | ours | dict.fromkeys(names, str(folder))


def shells_answer(shell: list[str], typed: str, wanted: str, folder: Path) -> str:
    """Type into an interactive shell and return what its terminal shows, up to what is wanted."""
    environment = shells_environment(folder)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        shell, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=folder, start_new_session=True
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = ""
        try:
            while wanted not in ESCAPES.sub("", shown):
                ready = select.select([ours], [], [], PATIENCE_S)[0]
                assert ready, f"only this was shown: {shown!r}"
                shown += os.read(ours, 4096).decode(errors="replace")
        finally:
            process.kill()
            os.close(ours)
    return shown


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(tciafs completion bash)"\n'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit && compinit -u; eval "$(tciafs completion zsh)"\n',
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [("tciafs unp\t", "tciafs unpin"), ("tciafs log-level war\t", "tciafs log-level warning")],
)
def test_a_real_shell_completes(shell: str, typed: str, becomes: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command, preparation = SHELLS[shell]
    shells_answer(command, preparation + typed, becomes, tmp_path)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(tmp_path: Path) -> None:
    script = 'tciafs completion fish | source; complete -C "tciafs unp"; complete -C "tciafs log-level w"'
    environment = shells_environment(tmp_path)
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["unpin", "warning"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_can_be_read_by_it(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = subprocess.run(
        [sys.executable, "-m", "tciafs", "completion", shell], capture_output=True, check=True
    ).stdout
    assert b"_TCIAFS_COMPLETE" in script
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
