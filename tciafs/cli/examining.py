"""Looking for what is wrong before, or after, a mount does not work."""

import dataclasses
import json
from pathlib import Path

import click

from tciafs.cli.output import say, styled
from tciafs.cli.words import setting_options, settings_of
from tciafs.settings import Settings

__all__ = ["doctor"]


@click.command(short_help="Say which of what a mount needs works.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each finding.")
@setting_options
def doctor(
    as_json: bool,
    foreground: bool,
    config: Path | None,
    mount_options: tuple[str, ...],
    **options: str | None,
) -> int:
    """Say which of what a mount needs works: FUSE, cache folder, network, archive, clock, login.

    Takes the options of a mount, and changes nothing. The exit code is 1 if something is to be done.

    \b
      tciafs doctor
      tciafs doctor --cache-dir /data/tcia    the same for a mount with this option
      tciafs doctor --json                    a line of JSON for each finding
    """
    import trio

    return trio.run(_examine, settings_of(mount_options, config, options), as_json)


async def _examine(settings: Settings, as_json: bool) -> int:
    from tciafs.control.report import printable
    from tciafs.doctor import findings

    exit_code = 0
    async for each in findings(settings):
        exit_code = exit_code if each.is_good else 1
        if as_json:
            say(json.dumps({"ok": each.is_good, **dataclasses.asdict(each)}))
            continue
        word = styled("ok  ", fg="green") if each.is_good else styled("FAIL", fg="red", bold=True)
        say(f"{word}  {each.what:14}{printable(each.said)}")
        if not each.is_good:
            say(f"{'':20}{printable(each.remedy)}")
    return exit_code
