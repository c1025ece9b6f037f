"""What is shipped: the wheel, the source distribution, the pinned versions."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from tciafs import __version__

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
CONSTRAINTS = (REPOSITORY / ".ci/constraints.txt").read_text(encoding="utf-8")
REFUSE = re.compile(r"__pycache__|\.pyc$|_cache/|\.venv/|^demo/|\.git/")
IMPORTED_AS = {"hypercorn[trio]": "hypercorn", "pillow": "PIL", "prometheus-client": "prometheus_client"}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> dict[str, bytes]:
    """The files in the wheel."""
    with zipfile.ZipFile(distributions / f"tciafs-{__version__}-py3-none-any.whl") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    return BytesParser().parsebytes(wheel[f"tciafs-{__version__}.dist-info/METADATA"])


@pytest.fixture(scope="module")
def sources(distributions: Path) -> set[str]:
    """The names in the source distribution, without its top folder."""
    with tarfile.open(distributions / f"tciafs-{__version__}.tar.gz") as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def files_below(folder: str) -> set[str]:
    found = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file())
    return {name for path in found if not REFUSE.search(name := path.relative_to(REPOSITORY).as_posix())}


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: dict[str, bytes]) -> None:
    information = f"tciafs-{__version__}.dist-info/"
    manual = f"tciafs-{__version__}.data/data/share/man/man1/tciafs.1"
    ours = {name for name in wheel if not name.startswith(information)}
    assert ours == files_below("tciafs") | {manual}
    assert wheel[manual] == (REPOSITORY / "docs/tciafs.1").read_bytes()
    assert "tciafs/py.typed" in wheel
    own = {name.removeprefix(information) for name in wheel if name.startswith(information)}
    assert own == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_the_command_is_tciafs(wheel: dict[str, bytes]) -> None:
    entry_points = wheel[f"tciafs-{__version__}.dist-info/entry_points.txt"].decode()
    assert entry_points.splitlines() == [
        "[console_scripts]",
        "mount.tciafs = tciafs.cli.mount_helper:main",
        "tciafs = tciafs.cli:main",
    ]
    command = [str(Path(sys.executable).with_name("tciafs")), "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == f"tciafs, version {__version__}\n"


def test_the_metadata_says_what_it_is(metadata: Message) -> None:
    assert metadata["Name"] == "tciafs"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "docs",
        "test",
        "bench",
        "fuzz",
        "idc",
        "idc-sample",
        "keyring",
    }
    assert metadata.get_payload() == (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_source_distribution_can_be_tested_and_holds_no_refuse(sources: set[str]) -> None:
    assert not [name for name in sources if REFUSE.search(name)]
    for folder in ("tciafs", "tests", "docs", "systemd", ".ci"):
        assert files_below(folder) <= sources
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Makefile",
    } <= sources


IN_EXTRAS = {"duckdb", "keyring"}
"""What only those import who asked for it: an index of a whole archive, a desktop's user."""


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    imported = set()
    for path in (REPOSITORY / "tciafs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    declared = {IMPORTED_AS.get(name, name) for name in map(distribution_of, PROJECT["dependencies"])}
    assert imported - sys.stdlib_module_names - {"tciafs"} - IN_EXTRAS == declared


def distribution_of(requirement: str) -> str:
    return requirement.split()[0]


def pinned() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    return dict(line.replace("_", "-").split("==") for line in lines)


def test_all_that_is_declared_is_pinned() -> None:
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    names = [
        distribution_of(requirement).partition("[")[0] for requirement in PROJECT["dependencies"] + extras
    ]
    assert {name.lower() for name in names} - pinned().keys() == set()


def test_the_pins_name_versions_and_no_place() -> None:
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pinned().values())
    assert "://" not in CONSTRAINTS


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", changelog, re.MULTILINE)[0] == "Unreleased"
