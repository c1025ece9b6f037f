"""Which folder can be mounted on, what is mounted where, and unmounting; at the end with real mounts."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tciafs.errors import Misuse, Unusable
from tciafs.filesystem import mountpoint as module
from tciafs.filesystem.mountpoint import (
    Mounted,
    Ours,
    all_of_ours,
    clear_dead_mount,
    mounted_at,
    ours_around,
    prepare,
    unmount,
)
from tests.mounting import Mount, is_mounted, mounted, program
from tests.sample.running import running_sample

NEEDS_FUSE = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is not there")


class Mountinfo:
    """A table of mounts like that of the kernel."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.write_bytes(b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n")

    def mount(self, path: str | bytes, kind: str = "fuse.tciafs", device: str = "0:77") -> None:
        escaped = b"".join(
            b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in os.fsencode(path)
        )
        line = b"101 22 %b / %b ro,nosuid shared:7 master:1 - %b tciafs:host ro,user_id=0\n"
        with self.file.open("ab") as file:
            file.write(line % (device.encode(), escaped, kind.encode()))


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mountinfo:
    table = Mountinfo(tmp_path / "mountinfo")
    monkeypatch.setattr(module, "MOUNTINFO", table.file)
    return table


@pytest.fixture
def fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with FUSE, whatever this one has; the folder holds its programs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    script(programs / "fusermount3", "exit 0")
    device = tmp_path / "fuse"
    device.touch()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(module, "FUSE_DEVICE", device)
    return programs


def script(file: Path, commands: str) -> None:
    file.write_text(f"#!/bin/sh\n{commands}\n")
    file.chmod(0o755)


# What is mounted where

ODD_NAMES = [
    "plain",
    "with space",
    "tab\there",
    "new\nline",
    "back\\slash",
    "looks like an escape \\040",
    "\\134040",
    "carriage\rreturn",
    "form\x0cfeed",
    "next line \x85",
    "separator \u2028 of lines",
    "dash - dash",
    "#hash",
    "größe",
    "no unicode \udcff",
    " ",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_mount_at_an_odd_path_is_found_and_hides_no_other(
    name: str, tmp_path: Path, mountinfo: Mountinfo
) -> None:
    mountinfo.mount(str(tmp_path / name))
    mountinfo.mount("/mnt/other", "fuse.sshfs", "0:78")
    assert mounted_at(tmp_path / name) == Mounted("fuse.tciafs", os.makedev(0, 77))
    assert mounted_at(Path("/mnt/other")) == Mounted("fuse.sshfs", os.makedev(0, 78))


def test_where_nothing_is_mounted_there_is_none(tmp_path: Path, mountinfo: Mountinfo) -> None:
    mountinfo.mount(str(tmp_path / "mnt"))
    assert mounted_at(tmp_path) is None
    assert mounted_at(tmp_path / "mnt" / "below") is None
    assert mounted_at(tmp_path / "mn") is None


def test_of_two_mounts_on_one_path_the_one_on_top_counts(tmp_path: Path, mountinfo: Mountinfo) -> None:
    mountinfo.mount(str(tmp_path), "fuse.tciafs", "0:70")
    mountinfo.mount(str(tmp_path), "tmpfs", "0:71")
    assert mounted_at(tmp_path) == Mounted("tmpfs", os.makedev(0, 71))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_mount_of_ours_is_found_with_its_owner(name: str, tmp_path: Path, mountinfo: Mountinfo) -> None:
    assert all_of_ours() == []
    mountinfo.mount(str(tmp_path / name))
    mountinfo.mount("/mnt/other", "fuse.sshfs", "0:78")
    mountinfo.mount("/mnt/second", device="0:79")
    assert all_of_ours() == [Ours(tmp_path / name, 0), Ours(Path("/mnt/second"), 0)]


def test_a_mount_that_is_bound_to_a_second_place_is_one_and_a_hidden_one_is_none(
    mountinfo: Mountinfo,
) -> None:
    mountinfo.mount("/mnt/a", device="0:70")
    mountinfo.mount("/mnt/b", device="0:70")
    mountinfo.mount("/mnt/hidden", device="0:71")
    mountinfo.mount("/mnt/hidden", "tmpfs", "0:72")
    assert all_of_ours() == [Ours(Path("/mnt/a"), 0)]


def test_a_path_lies_in_the_innermost_mount_around_it(mountinfo: Mountinfo) -> None:
    mountinfo.mount("/mnt/a")
    mountinfo.mount("/mnt/a/inner", "tmpfs", "0:78")
    found = Ours(Path("/mnt/a"), 0)
    assert ours_around(Path("/mnt/a")) == ours_around(Path("/mnt/a/")) == (found, "/")
    assert ours_around(Path("/mnt/a/Lung/P 1/\udcff")) == (found, "/Lung/P 1/\udcff")
    assert ours_around(Path("/mnt/a/x/../Lung/./y//z")) == (found, "/Lung/y/z")
    for outside in ("/mnt/ab", "/mnt", "/", "/mnt/a/..", "/mnt/a/x/../../b", "/mnt/a/inner/x"):
        assert ours_around(Path(outside)) is None, outside


def test_links_outside_a_mount_are_followed_and_nothing_inside_is_touched(
    tmp_path: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnt = tmp_path / "a" / "mnt"
    mnt.mkdir(parents=True)
    (mnt / "link").symlink_to("/")  # not what the mount shows, which has no links
    (tmp_path / "to-mnt").symlink_to("a/mnt")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "into").symlink_to(mnt / "Lung")
    (tmp_path / "b" / "up").symlink_to("../to-mnt/../mnt")
    mountinfo.mount(str(mnt))
    found = Ours(mnt, 0)
    assert ours_around(tmp_path / "to-mnt" / "Lung") == (found, "/Lung")
    assert ours_around(tmp_path / "b" / "into" / "P1") == (found, "/Lung/P1")
    assert ours_around(tmp_path / "b" / "up" / "P1") == (found, "/P1")
    assert ours_around(mnt / "link" / "x") == (found, "/link/x")
    monkeypatch.chdir(tmp_path / "a")
    assert ours_around(Path("mnt/x")) == (found, "/x")


def test_links_in_a_circle_lead_into_no_mount(tmp_path: Path, mountinfo: Mountinfo) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(Unusable, match="in a circle"):
        ours_around(tmp_path / "circle" / "x")


def test_a_device_of_large_numbers_is_the_one_that_stat_gives(tmp_path: Path, mountinfo: Mountinfo) -> None:
    mountinfo.mount(str(tmp_path), device="0:300000")
    mounted = mounted_at(tmp_path)
    assert mounted is not None
    assert os.minor(mounted.device) == 300_000


def test_a_relative_path_a_final_slash_and_dots_name_the_same_mount(
    tmp_path: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "mnt" / "below").mkdir(parents=True)
    mountinfo.mount(str(tmp_path / "a" / "mnt"))
    monkeypatch.chdir(tmp_path / "a")
    for path in ("mnt", "mnt/", "./mnt", "../a/mnt", f"{tmp_path}/a/mnt/", "mnt/."):
        assert mounted_at(Path(path)) is not None, path
    monkeypatch.chdir(tmp_path / "a" / "mnt")
    assert mounted_at(Path()) is not None
    monkeypatch.chdir(tmp_path / "a" / "mnt" / "below")
    assert mounted_at(Path("..")) is not None


def test_symbolic_links_on_the_way_and_at_the_end_lead_to_the_mount(
    tmp_path: Path, mountinfo: Mountinfo
) -> None:
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "way").symlink_to(tmp_path / "real")
    (tmp_path / "end").symlink_to("way/mnt")
    (tmp_path / "long end").symlink_to("end")
    mountinfo.mount(str(tmp_path / "real" / "mnt"))
    for path in ("way/mnt", "end", "long end", "way/../way/mnt"):
        assert mounted_at(tmp_path / path) is not None, path


def test_links_in_a_circle_are_unusable_and_not_followed_for_ever(
    tmp_path: Path, mountinfo: Mountinfo
) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(Unusable, match="circle"):
        mounted_at(tmp_path / "one")


def test_the_real_table_knows_proc_itself() -> None:
    proc = mounted_at(Path("/proc"))
    assert proc is not None
    assert (proc.type, proc.device) == ("proc", os.stat("/proc").st_dev)


# Before mounting


def test_an_empty_folder_is_fit_and_its_absolute_path_is_given(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnt").mkdir()
    monkeypatch.chdir(tmp_path)
    assert prepare(Path("mnt")) == tmp_path / "mnt"


def test_a_link_to_an_empty_folder_gives_the_folder(tmp_path: Path, fuse: Path, mountinfo: Mountinfo) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "link").symlink_to("mnt")
    assert prepare(tmp_path / "link") == tmp_path / "mnt"


def test_without_fusermount3_the_sentence_says_how_to_install_it(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unusable, match="fusermount3 is missing; install it with: apt-get install fuse3"):
        prepare(tmp_path)


def test_without_the_device_the_sentence_says_how_to_load_it(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FUSE_DEVICE", tmp_path / "absent")
    with pytest.raises(
        Unusable, match=r"absent is not there; load it with: modprobe fuse .*--device /dev/fuse"
    ):
        prepare(tmp_path)


def test_a_device_that_this_user_may_not_open_is_named(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != module.FUSE_DEVICE and may(path, mode))
    with pytest.raises(Unusable, match="may not be opened by this user; ask for mode 0666"):
        prepare(tmp_path)


def test_a_folder_that_does_not_exist_comes_with_the_command_that_makes_it(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo
) -> None:
    with pytest.raises(
        Unusable, match=f"{tmp_path}/none does not exist; make it with: mkdir -p {tmp_path}/none"
    ):
        prepare(tmp_path / "none")


def test_a_file_is_not_a_folder(tmp_path: Path, fuse: Path, mountinfo: Mountinfo) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="file is not a folder"):
        prepare(tmp_path / "file")


def test_a_folder_with_something_in_it_would_hide_it(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo
) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / ".hidden").touch()
    with pytest.raises(Unusable, match="is not empty"):
        prepare(tmp_path / "mnt")


def test_an_ordinary_user_needs_a_folder_that_is_theirs_to_write(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    folder = tmp_path / "mnt"
    folder.mkdir()
    assert prepare(folder) == folder
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder or not mode & os.W_OK)
    with pytest.raises(Unusable, match="is not yours to write, as FUSE asks; mount on a folder of your own"):
        prepare(folder)


def test_a_folder_that_may_not_be_read_is_not_usable(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(Unusable, match="cannot be used: Permission denied"):
        prepare(tmp_path)


def test_a_name_that_is_too_long_is_not_usable(tmp_path: Path, fuse: Path, mountinfo: Mountinfo) -> None:
    with pytest.raises(Unusable, match="cannot be used: File name too long"):
        prepare(tmp_path / ("x" * 300))


def test_a_living_mount_of_ours_is_named_with_the_command_that_ends_it(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo
) -> None:
    mountinfo.mount(str(tmp_path))
    with pytest.raises(Unusable, match=f"already has tciafs mounted; see tciafs umount {tmp_path}"):
        prepare(tmp_path)


def test_a_mount_of_another_fuse_program_is_left_alone(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo
) -> None:
    mountinfo.mount(str(tmp_path), "fuse.sshfs")
    with pytest.raises(Unusable, match=r"already has something mounted \(fuse.sshfs\)"):
        prepare(tmp_path)


def test_an_empty_file_system_of_another_kind_can_be_mounted_on(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo
) -> None:
    (tmp_path / "mnt").mkdir()
    mountinfo.mount(str(tmp_path / "mnt"), "tmpfs")
    assert prepare(tmp_path / "mnt") == tmp_path / "mnt"


# Unmounting


def test_where_nothing_is_mounted_nothing_can_be_unmounted(tmp_path: Path, mountinfo: Mountinfo) -> None:
    with pytest.raises(Misuse, match=f"^nothing is mounted at {tmp_path}$"):
        unmount(tmp_path)


def test_what_is_not_ours_is_not_unmounted(tmp_path: Path, fuse: Path, mountinfo: Mountinfo) -> None:
    mountinfo.mount(str(tmp_path), "ext4")
    script(fuse / "fusermount3", f"touch {tmp_path}/called")
    with pytest.raises(Misuse, match=f"ext4 is mounted at {tmp_path}, not tciafs"):
        unmount(tmp_path)
    assert not (tmp_path / "called").exists()


def test_a_mount_is_unmounted_by_its_real_path(tmp_path: Path, fuse: Path, mountinfo: Mountinfo) -> None:
    (tmp_path / "-mnt").mkdir()
    (tmp_path / "link").symlink_to("-mnt")
    mountinfo.mount(str(tmp_path / "-mnt"))
    script(fuse / "fusermount3", f'echo "$*" > {tmp_path}/called')
    unmount(tmp_path / "link")
    assert (tmp_path / "called").read_text() == f"-u -- {tmp_path}/-mnt\n"


def test_a_mount_in_use_comes_with_the_command_that_shows_by_whom(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo
) -> None:
    mountinfo.mount(str(tmp_path))
    script(fuse / "fusermount3", "echo 'failed to unmount: Device or resource busy' >&2; exit 1")
    with pytest.raises(Unusable, match=f"is in use; see who with: fuser -vm {tmp_path}"):
        unmount(tmp_path)


def test_what_fusermount3_complains_of_is_passed_on(tmp_path: Path, fuse: Path, mountinfo: Mountinfo) -> None:
    mountinfo.mount(str(tmp_path))
    script(fuse / "fusermount3", "echo 'not in the mood' >&2; exit 1")
    with pytest.raises(Unusable, match="could not be unmounted: not in the mood"):
        unmount(tmp_path)


def test_a_fusermount3_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo.mount(str(tmp_path))
    script(fuse / "fusermount3", "exec sleep 60")
    monkeypatch.setattr(module, "HELPER_TIMEOUT_S", 0.2)
    with pytest.raises(Unusable, match=r"could not be unmounted within 0.2 s"):
        unmount(tmp_path)


def test_without_fusermount3_nothing_can_be_unmounted(
    tmp_path: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo.mount(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unusable, match="fusermount3 is missing"):
        unmount(tmp_path)


def test_where_nothing_of_ours_is_mounted_nobody_even_looks_for_a_dead_mount(
    tmp_path: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_dead", lambda _path: pytest.fail("it was touched"))
    assert not clear_dead_mount(tmp_path)
    mountinfo.mount(str(tmp_path), "fuse.sshfs")
    assert not clear_dead_mount(tmp_path)


def test_a_dead_mount_in_use_is_unmounted_lazily(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo.mount(str(tmp_path))
    monkeypatch.setattr(module, "is_dead", lambda path: path == tmp_path)
    commands = f'echo "$*" >> {tmp_path}/called; [ $2 = -z ] || {{ echo busy >&2; exit 1; }}'
    script(fuse / "fusermount3", commands)
    unmount(tmp_path)
    assert (tmp_path / "called").read_text() == f"-u -- {tmp_path}\n-u -z -- {tmp_path}\n"


def test_a_mount_that_is_not_in_use_is_unmounted_without_asking_whether_it_is_dead(
    tmp_path: Path, fuse: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo.mount(str(tmp_path))
    monkeypatch.setattr(module, "is_dead", lambda _path: pytest.fail("it was touched"))
    unmount(tmp_path)


def test_a_mount_that_answers_is_not_dead(tmp_path: Path, mountinfo: Mountinfo) -> None:
    mountinfo.mount(str(tmp_path))
    assert not clear_dead_mount(tmp_path)


# With the real thing


@pytest.fixture
def mount() -> Iterator[Mount]:
    with running_sample() as sample, mounted(sample.url, background=True) as mount:
        yield mount


@pytest.mark.mount
@NEEDS_FUSE
def test_a_mount_whose_daemon_was_killed_is_recognised_and_cleared(mount: Mount) -> None:
    assert not clear_dead_mount(mount.path)
    with pytest.raises(Unusable, match="already has tciafs mounted"):
        prepare(mount.path)
    mount.kill()
    with pytest.raises(OSError, match="Transport endpoint is not connected") as raised:
        os.listdir(mount.path)
    assert raised.value.errno == errno.ENOTCONN
    assert is_mounted(mount.path)
    assert prepare(mount.path) == mount.path
    assert not is_mounted(mount.path)
    assert not clear_dead_mount(mount.path)


@pytest.mark.mount
@NEEDS_FUSE
def test_a_dead_mount_somebody_stands_in_is_unmounted_by_the_command_all_the_same(mount: Mount) -> None:
    inside = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mount.kill()
        done = program("umount", mount.path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not is_mounted(mount.path)
    finally:
        os.close(inside)


@pytest.mark.mount
@NEEDS_FUSE
def test_a_mount_whose_daemon_is_frozen_is_unmounted_without_waiting_for_it(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount.signal(signal.SIGSTOP)
    try:
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.2)
        with pytest.raises(Unusable, match="already has tciafs mounted"):
            prepare(mount.path)
        unmount(mount.path)
        assert not is_mounted(mount.path)
    finally:
        mount.signal(signal.SIGCONT)
    mount.wait_ended()
