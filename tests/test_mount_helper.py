"""mount.tciafs: the words of mount(8), and the real `mount` with a line of /etc/fstab.

The real one runs with mounts of its own, where the helper lies over /sbin for the length of a test.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tciafs import launching
from tciafs.cli import mount_helper
from tciafs.errors import Misuse
from tciafs.filesystem import mountpoint as mountpoints
from tciafs.settings import Settings
from tests.mounting import marked_environment, run

LINE = "tcia {place} tciafs ro,_netdev,noauto,x-systemd.automount,cache_size=50G,archive=sample,{more} 0 0\n"
HELPER = Path(sys.executable).with_name("mount.tciafs")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Settings, Path]]:
    """What would have been mounted, and where; there is no /etc/tciafs."""
    calls: list[tuple[Settings, Path]] = []

    def start(settings: Settings, mountpoint: Path) -> str:
        calls.append((settings, mountpoint))
        return f"{mountpoint}: ready"

    monkeypatch.setattr(launching, "start", start)
    monkeypatch.setattr(mountpoints, "prepare", lambda place: place)
    monkeypatch.setattr(mount_helper, "CONFIGURATION", tmp_path / "config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return calls


def as_user(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: number)


GENERIC = "ro,_netdev,noauto,nosuid,nodev,noexec,noatime,nofail,defaults,X-mount.mkdir,x-systemd.automount"


def test_what_is_meant_for_others_is_passed_over(started: list[tuple[Settings, Path]]) -> None:
    mount_helper.run(["tcia", "/mnt/tcia", "-s", "-o", f"{GENERIC},archive=sample,cache_size=2G,allow_other"])
    ((settings, place),) = started
    assert place == Path("/mnt/tcia")
    assert (settings.archive, settings.cache_size, settings.allow_other) == ("sample", 2 << 30, True)


def test_root_mounts_with_the_folders_of_a_machine(
    started: list[tuple[Settings, Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_user(0, monkeypatch)
    (tmp_path / "config.toml").write_text('downloads = 2\narchive = "sample"\n')
    mount_helper.run(["tcia", "/mnt/my-tcia", "-o", "rw"])
    ((settings, _place),) = started
    assert settings.downloads == 2
    assert settings.cache_dir == Path(r"/var/cache/tciafs/mnt-my\x2dtcia")
    assert settings.log_file == Path(r"/var/log/tciafs/mnt-my\x2dtcia.log")


def test_a_user_mounts_with_folders_of_his_own(
    started: list[tuple[Settings, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(1000, monkeypatch)
    mount_helper.run(["tcia", "/mnt/tcia", "-o", "archive=sample"])
    ((settings, _place),) = started
    assert (settings.cache_dir, settings.log_file) == (None, None)


def test_the_user_whom_mount_names_is_no_login(started: list[tuple[Settings, Path]]) -> None:
    import pwd

    me = pwd.getpwuid(os.getuid()).pw_name
    mount_helper.run(["tcia", "/mnt/tcia", "-o", f"rw,user={me},archive=sample"])
    mount_helper.run(["tcia", "/mnt/tcia", "-o", "rw,user=somebody-else,archive=sample"])
    assert [settings.user for settings, _place in started] == [None, "somebody-else"]


def test_a_dry_run_reads_the_options_and_mounts_nothing(started: list[tuple[Settings, Path]]) -> None:
    mount_helper.run(["tcia", "/mnt/tcia", "-f", "-o", "archive=sample"])
    with pytest.raises(Misuse, match="did you mean cache_size"):
        mount_helper.run(["tcia", "/mnt/tcia", "-f", "-o", "cachesize=5G"])
    assert started == []


@pytest.mark.parametrize(
    "words", [[], ["tcia"], ["a", "b", "c"], ["tcia", "/mnt", "-q"], ["t", "/m", "-o", "remount"]]
)
def test_wrong_use_has_the_exit_code_of_mount(
    words: list[str], started: list[tuple[Settings, Path]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["mount.tciafs", *words])
    with pytest.raises(SystemExit) as ended:
        mount_helper.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("tciafs: ")
    assert started == []


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_who_mounts_for_an_automount_does_not_look_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looking").touch()
    waiting = mountpoints.Mounted("autofs", 0)
    monkeypatch.setattr(mountpoints, "mounted_at", lambda place: waiting)
    assert mountpoints.prepare(tmp_path) == tmp_path


SCRIPT = """
set -eu
mkdir {folder}/sbin {folder}/mnt
ln -s {helper} {folder}/sbin/mount.tciafs
mount -t overlay -o lowerdir={folder}/sbin:/usr/sbin overlay /usr/sbin
test -x /sbin/mount.tciafs
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -T {folder}/fstab {folder}/mnt
ls {folder}/mnt
findmnt --noheadings --output FSTYPE,OPTIONS {folder}/mnt
umount {folder}/mnt
ls {folder}/mnt | wc -l
"""


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse")
@pytest.mark.skipif(run("unshare", "--mount", "true").returncode != 0, reason="no mounts of one's own here")
def test_a_line_of_fstab_is_mounted_by_the_real_mount(tmp_path: Path) -> None:
    more = f"cache_dir={tmp_path}/cache,log_file={tmp_path}/log"
    (tmp_path / "fstab").write_text(LINE.format(place=tmp_path / "mnt", more=more))
    script = SCRIPT.format(folder=shlex.quote(str(tmp_path)), helper=shlex.quote(str(HELPER)))
    assert HELPER.exists()
    done = run("unshare", "--mount", "sh", "-c", script, environment=marked_environment("fstab"))
    assert done.returncode == 0, done.stderr
    *names, mounted, after = done.stdout.splitlines()
    assert "Phantom-Head" in names
    assert mounted.startswith("fuse.tciafs ro,nosuid,nodev,")
    assert after == "0"
    assert " ERROR " not in (tmp_path / "log").read_text()
