"""The command line: words into Settings, errors into one clear line and an exit code.

Of the modules of commands only the one that is meant is imported: all of them take 30 ms. What is heavy is
imported only where it is used, so that `--help`, which looks at all of them, is instant.
"""

import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import cast

import click

from tciafs import __version__
from tciafs.cli.output import fail, fail_with, sentence
from tciafs.cli.words import MountOrCommand
from tciafs.errors import TciafsError

__all__ = ["commands", "main"]

MODULES = {
    "mount": "mounting",
    "demo": "mounting",
    "umount": "mounting",
    "status": "statuses",
    "metrics": "metering",
    "refresh": "daemons",
    "pause": "daemons",
    "resume": "daemons",
    "log-level": "log_levels",
    "prefetch": "prefetching",
    "retry": "prefetching",
    "verify": "verifying",
    "pin": "keeping",
    "unpin": "keeping",
    "evict": "keeping",
    "login": "logins",
    "logout": "logins",
    "agree": "agreeing",
    "doctor": "examining",
    "du": "measuring",
    "export": "exporting",
    "cite": "citing",
    "config": "configuring",
    "completion": "completing",
    "manifest": "manifests",
    "attach": "serving",
}
"""Which module of `cli` has a command, under the command's name with _ for -."""


class _OnDemand(Mapping[str, click.Command]):
    """The commands by their names, each imported when somebody asks for it."""

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"tciafs.cli.{MODULES[name]}")
        return cast(click.Command, getattr(module, name.replace("-", "_")))

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)

    def __contains__(self, name: object) -> bool:  # that of Mapping would import it
        return name in MODULES


@click.group(
    cls=MountOrCommand,
    commands=cast(MutableMapping[str, click.Command], _OnDemand()),  # nothing is added to it
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 the work failed, 2 wrong use, 3 the mount point or FUSE is not usable, "
    "4 the archive refused. Documentation: docs/ in the sources.",
)
@click.version_option(__version__, prog_name="tciafs")
def commands() -> None:
    """The Cancer Imaging Archive as folders; only what is read is downloaded.

    \b
      tciafs /mnt/tcia              mount; ls, cp and open what you like
      tciafs umount /mnt/tcia       unmount
      tciafs prefetch PATH...       fetch all that is there, with its progress
      tciafs status                 what your mounts do: downloads, cache, failures; --watch goes on
      tciafs pause /mnt/tcia        let downloads stand still; resume lets them go on
      tciafs demo                   try it on the bundled sample: no account, no network
      tciafs doctor                 which of what it takes works, and what to do
      tciafs mount --help           all options, which may also stand before the mount point
    """


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = commands.main(prog_name="tciafs", standalone_mode=False)
    except click.ClickException as error:
        code = fail(_usage_sentence(error), error.exit_code)
    except click.Abort:
        code = 130
    except TciafsError as error:
        code = fail_with(error)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        code = fail(sentence(said, TciafsError.hint), TciafsError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _usage_sentence(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    said = " ".join(error.format_message().split()).rstrip(".")
    return sentence(said, f"See {context.command_path if context else 'tciafs'} --help.")
