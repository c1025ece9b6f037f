"""Looking for what is wrong before, or after, a mount does not work."""

from pathlib import Path

import click

from tciafs.cli.output import say
from tciafs.cli.words import setting_options, settings_of
from tciafs.settings import Settings

__all__ = ["doctor"]


@click.command()
@setting_options
def doctor(
    foreground: bool,
    config: Path | None,
    mount_options: tuple[str, ...],
    **options: str | None,
) -> int:
    """Say which of what a mount needs works: FUSE, cache folder, network, archive, clock, login.

    Takes the options of a mount, and changes nothing. The exit code is 1 if something is to be done.
    """
    import trio

    return trio.run(_examine, settings_of(mount_options, config, options))


async def _examine(settings: Settings) -> int:
    from tciafs.control.report import printable
    from tciafs.doctor import findings

    exit_code = 0
    async for each in findings(settings):
        say(f"{'ok  ' if each.is_good else 'FAIL'}  {each.what:14}{printable(each.said)}")
        if not each.is_good:
            say(f"{'':20}{printable(each.remedy)}")
            exit_code = 1
    return exit_code
