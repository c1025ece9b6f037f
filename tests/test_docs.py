"""The documentation held against the program: settings, errors, rooms, links, and the commands it shows.

`python -m tests.test_docs` writes the table of settings into docs/configuration.md anew, and the manual
page; the format of that table is defined here and only here. Nothing is mounted, and no network asked.
"""

import ast
import errno
import fnmatch
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click
import pytest

from tciafs import cli, errors
from tciafs.errors import TciafsError
from tciafs.setting_sources import load_settings
from tciafs.settings import Declaration, declarations
from tests.filesystem.faults import SERIES_FAULTS
from tests.man_page import MAN_PAGE, man_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("systemd/*.md")])
CONFIGURATION = ROOT / "docs" / "configuration.md"
REFRESH = ".venv/bin/python -m tests.test_docs"
README_LINES = 150

SETTINGS_BEGIN = "<!-- settings: written by python -m tests.test_docs; do not edit by hand -->"
SETTINGS_END = "<!-- end of settings -->"
ROOMS_BEGIN, ROOMS_END = "<!-- rooms -->", "<!-- end of rooms -->"

ERROR_CLASSES = sorted(
    (found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, TciafsError)),
    key=lambda found: found.__name__,
)

page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# What a page consists of


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code: its language ("" if none is given) and its lines."""

    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """A command as a page shows it, and what the page says it prints ("" if nothing is shown)."""

    command: str
    output: str


def blocks_of(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(match[1], tuple(match[2].splitlines()))


def prose_of(text: str) -> str:
    """Return a page without its blocks of code, where # and [] mean something else."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings_of(text: str) -> list[str]:
    """Return the texts of all headings."""
    return re.findall(r"^#{1,6} +(.+?) *$", prose_of(text), re.MULTILINE)


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings: the second of two equal ones ends in -1."""
    anchors: set[str] = set()
    for heading in headings_of(text):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", known) is not None for known in anchors)
        anchors.add(f"{slug}-{again}" if again else slug)
    return anchors


def links_of(text: str) -> list[str]:
    """Return the targets of all links that stay inside the repository."""
    prose = re.sub(r"`[^`\n]*`", "", prose_of(text))
    targets = re.findall(r"\]\(([^()\s]+)\)", prose)
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def between(text: str, begin: str, end: str) -> str:
    """Return what stands between two lines; fails where they are missing."""
    assert text.count(begin) == text.count(end) == 1, f"the lines {begin} and {end} must be there once"
    return text.partition(begin)[2].partition(end)[0]


def shown_in(block: Block) -> Iterator[Shown]:
    """Yield the commands of a block: lines after "$ ", or in a block of the language sh all lines."""
    if block.language == "sh":
        yield from (Shown(line.partition(" # ")[0], "") for line in block.lines)
        return
    command, output = "", list[str]()
    for line in block.lines:
        if line.startswith("$ "):
            if command:
                yield Shown(command, "\n".join(output))
            command, output = line.removeprefix("$ "), []
        else:
            output.append(line)
    if command:
        yield Shown(command, "\n".join(output))


def all_shown() -> Iterator[tuple[Path, Shown]]:
    for path in PAGES:
        for block in blocks_of(path.read_text("utf-8")):
            if block.language in ("sh", "console"):
                yield from ((path, shown) for shown in shown_in(block))


# Settings


def settings_table() -> str:
    """Return the table of all settings as docs/configuration.md shows it."""
    rows = "".join(_settings_row(each) for each in declarations())
    return f"\n| option | variable | default | what it is |\n|---|---|---|---|\n{rows}"


def _settings_row(each: Declaration) -> str:
    metavar = " " + each.metavar.replace("|", r"\|") if each.metavar else ""
    default = f"`{each.default_text}`" if each.default_text else "no" if each.is_flag else ""
    return f"| `{each.option}{metavar}` | `{each.variable}` | {default} | {each.help} |\n"


def write_settings_table() -> None:
    """Bring docs/configuration.md up to date."""
    text = CONFIGURATION.read_text("utf-8")
    old = SETTINGS_BEGIN + between(text, SETTINGS_BEGIN, SETTINGS_END) + SETTINGS_END
    CONFIGURATION.write_text(text.replace(old, SETTINGS_BEGIN + settings_table() + SETTINGS_END), "utf-8")


def test_the_table_of_settings_says_what_is_declared() -> None:
    written = between(CONFIGURATION.read_text("utf-8"), SETTINGS_BEGIN, SETTINGS_END)
    assert written == settings_table(), f"docs/configuration.md is out of date; refresh it with: {REFRESH}"


def test_the_configuration_files_shown_can_be_loaded(tmp_path: Path) -> None:
    examples = [block for block in blocks_of(CONFIGURATION.read_text("utf-8")) if block.language == "toml"]
    assert examples
    for example in examples:
        file = tmp_path / "config.toml"
        file.write_text("\n".join(example.lines))
        load_settings({}, environment={}, file=file)


# Errors


@pytest.mark.parametrize("error", ERROR_CLASSES, ids=lambda error: error.__name__)
def test_every_error_has_an_entry_under_what_the_user_sees_of_it(error: type[TciafsError]) -> None:
    headings = headings_of((ROOT / "docs" / "troubleshooting.md").read_text("utf-8"))
    entries = [heading for heading in headings if f"`{error.__name__}`" in heading]
    assert len(entries) == 1
    only_commands_end_in_it = error in (errors.Unusable, errors.Misuse, errors.NoDaemon, errors.NotAgreed)
    seen = f"exit code {error.exit_code}" if only_commands_end_in_it else f"`{errno.errorcode[error.errno]}`"
    assert seen in entries[0]


@pytest.mark.parametrize("error", ERROR_CLASSES, ids=lambda error: error.__name__)
def test_an_entry_shows_the_command_the_log_and_what_to_do(error: type[TciafsError]) -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    sections = re.split(r"^#{2,3} ", text, flags=re.MULTILINE)
    (entry,) = (each for each in sections if f"`{error.__name__}`" in each.partition("\n")[0])
    body = entry.partition("\n")[2]
    assert any("$ " in line for block in blocks_of(body) for line in block.lines)
    assert re.search(r"^Log", body, re.MULTILINE), "an entry says what is in the log, or that nothing is"
    assert len(re.sub(r"^Log.*$", "", prose_of(body), flags=re.MULTILINE).split()) > 15


def test_the_table_of_errors_names_every_errno_a_file_operation_can_give() -> None:
    semantics = (ROOT / "docs" / "semantics.md").read_text("utf-8")
    documented = set(re.findall(r"^\|.*\| `(E[A-Z]+)` \|", semantics, re.MULTILINE))
    in_files = set(ERROR_CLASSES) - {errors.Unusable, errors.Misuse, errors.NoDaemon, errors.NotAgreed}
    assert {errno.errorcode[error.errno] for error in in_files} <= documented


@pytest.mark.parametrize("number", sorted({each.errno for each in SERIES_FAULTS if each.errno}))
def test_a_sentence_that_mounts_were_seen_to_give_with_an_errno_is_in_its_entry(number: int) -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    name = f"`{errno.errorcode[number]}`"
    entries = [entry for entry in text.split("\n### ") if name in entry.partition("\n")[0]]
    sentences = [fault.says for fault in SERIES_FAULTS if fault.errno == number and fault.says]
    assert any(sentence in entry for sentence in sentences for entry in entries)


# Rooms


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the modules outside the sample archive, which is a program of its own."""
    for path in sorted((ROOT / "tciafs").rglob("*.py")):
        place = path.relative_to(ROOT / "tciafs")
        if place.parts[0] != "sample" and path.name != "__init__.py":
            yield str(PurePosixPath(place.with_suffix(""))), path


def imports_of(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a module imports, except for type checking."""
    known = {name for name, _path in modules()}
    for node in _statements(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("tciafs"):
            continue
        package = (node.module or "").replace(".", "/").removeprefix("tciafs").removeprefix("/")
        if package in known:
            yield package
        else:
            below = (f"{package}/{alias.name}".removeprefix("/") for alias in node.names)
            yield from (module for module in below if module in known)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from _statements(node)


def rooms() -> Mapping[str, list[str]]:
    """Return what docs/architecture.md lets each module import: patterns of names."""
    table = between((ROOT / "docs" / "architecture.md").read_text("utf-8"), ROOMS_BEGIN, ROOMS_END)
    found = {}
    for row in re.findall(r"^\| `([^`]+)` \|.*\|([^|]*)\|$", table, re.MULTILINE):
        assert row[0] not in found, f"{row[0]} has two rows"
        found[row[0]] = re.findall(r"`([^`]+)`", row[1])
    return found


def test_the_table_of_rooms_has_every_module_and_no_other() -> None:
    assert sorted(rooms()) == sorted(name for name, _path in modules())


@pytest.mark.parametrize("module", [name for name, _path in modules()])
def test_a_module_imports_only_what_the_table_of_rooms_allows(module: str) -> None:
    allowed = rooms().get(module, [])
    imported = imports_of(dict(modules())[module])
    assert [each for each in imported if not any(fnmatch.fnmatch(each, one) for one in allowed)] == []


# Links


@page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    broken = []
    for target in links_of(text):
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        if not place.exists() or (anchor and anchor not in anchors_of(place.read_text("utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not here")
def test_the_pages_become_a_web_site_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run([ROOT / ".ci" / "docs", tmp_path], check=False, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    pages = {str(path.relative_to(ROOT).with_suffix(".html")) for path in PAGES}
    made = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.html")}
    assert {page.replace("README", "index") for page in pages} <= made


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < README_LINES


# Commands


def tciafs_words(command: str) -> Iterator[list[str]]:
    """Yield the words after each `tciafs` in a line of shell."""
    tokens = shlex.shlex(command, posix=True, punctuation_chars=True)
    tokens.whitespace_split = True
    words = list[str]()
    for token in [*tokens, ";"]:
        if not set(token) <= set("();<>|&"):
            words.append(token)
            continue
        names = [PurePosixPath(word).name for word in words]
        if "tciafs" in names and not {"grep", "command", "--", "-m"}.intersection(names):
            yield words[names.index("tciafs") + 1 :]
        words = []


def refusal_of(words: list[str]) -> str:
    """Return why tciafs does not take these words, "" if it does."""
    try:
        cli.commands.main(args=words, prog_name="tciafs", standalone_mode=False)
    except click.ClickException as refusal:
        return refusal.format_message()
    except TciafsError as refusal:
        return str(refusal)
    return ""


SHOWN_TCIAFS = [
    pytest.param(shown, id=f"{path.name}: {shown.command[:60]}")
    for path, shown in all_shown()
    if re.search(r"(^|[ /])tciafs ", shown.command)
]


@pytest.mark.parametrize("shown", SHOWN_TCIAFS)
def test_a_command_is_understood_or_shown_with_its_refusal(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.touch()

    def only_read_settings(**given: Any) -> None:
        options = {each.name: given[each.name] for each in declarations() if given.get(each.name) is not None}
        mount_options = ",".join(given.get("mount_options", ()))
        load_settings(options, mount_options, environment={}, file=config)

    for command in cli.commands.commands.values():
        for each in command.commands.values() if isinstance(command, click.Group) else (command,):
            monkeypatch.setattr(each, "callback", only_read_settings)
    for words in tciafs_words(shown.command):
        assert refusal_of(words) in shown.output


def test_the_commands_of_tciafs_are_found_in_the_pages() -> None:
    assert len(SHOWN_TCIAFS) > 10


@page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text("utf-8")))
    for block in blocks_of(page.read_text("utf-8")):
        for line in block.lines:
            named.update(re.findall(r"^(?:\$ )?make ([a-z-]+)", line))
    assert named <= targets


def test_the_manual_page_says_what_the_command_line_knows() -> None:
    is_current = MAN_PAGE.read_text("utf-8") == man_page()
    assert is_current, f"docs/tciafs.1 is out of date; refresh it with: {REFRESH}"


if __name__ == "__main__":
    write_settings_table()
    MAN_PAGE.write_text(man_page(), "utf-8")
