"""The command line: words into Settings, errors into one clear line and an exit code.

What is heavy is imported only where it is used, so that `--help` is instant.
"""

import sys

import click

from tciafs import __version__
from tciafs.cli.agreeing import agree
from tciafs.cli.citing import cite
from tciafs.cli.completing import completion
from tciafs.cli.configuring import config
from tciafs.cli.daemons import pause, refresh, resume
from tciafs.cli.examining import doctor
from tciafs.cli.exporting import export
from tciafs.cli.keeping import evict, pin, unpin
from tciafs.cli.log_levels import log_level
from tciafs.cli.logins import login, logout
from tciafs.cli.manifests import manifest
from tciafs.cli.measuring import du
from tciafs.cli.metering import metrics
from tciafs.cli.mounting import demo, mount, umount
from tciafs.cli.output import fail, fail_with, sentence
from tciafs.cli.prefetching import prefetch, retry
from tciafs.cli.serving import attach
from tciafs.cli.statuses import status
from tciafs.cli.verifying import verify
from tciafs.cli.words import MountOrCommand
from tciafs.errors import TciafsError

__all__ = ["commands", "main"]


@click.group(
    cls=MountOrCommand,
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


for command in (
    mount,
    demo,
    umount,
    status,
    metrics,
    refresh,
    pause,
    resume,
    log_level,
    prefetch,
    retry,
    verify,
    pin,
    unpin,
    evict,
    login,
    logout,
    agree,
    doctor,
    du,
    export,
    cite,
    config,
    completion,
    manifest,
    attach,
):
    commands.add_command(command)


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
