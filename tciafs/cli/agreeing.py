"""Agreeing to the data usage policy: by a command, by an option, or when asked at the first mount."""

import sys

import click

from tciafs.cli.output import say
from tciafs.errors import NotAgreed
from tciafs.policy import DATA_USAGE_POLICY_URL, POLICY_IN_SHORT
from tciafs.settings import Settings

__all__ = ["agree", "ensure_agreed"]


@click.command(short_help="Agree to TCIA's data usage policy.")
def agree() -> None:
    """Agree to TCIA's data usage policy, once for all your mounts.

    \b
      tciafs agree
    """
    from tciafs import agreement

    agreement.agree()
    say(f"You have agreed to the data usage policy of TCIA: {DATA_USAGE_POLICY_URL}")
    say(POLICY_IN_SHORT)


def ensure_agreed(settings: Settings) -> None:
    """See to it that the policy of the archive is agreed to, by asking on the terminal if there is one.

    Raises NotAgreed.
    """
    from tciafs import agreement

    if settings.archive == "sample" or settings.agree_to_policy or not agreement.must_agree(settings.url):
        return
    if agreement.has_agreed():
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotAgreed(f"the data usage policy of TCIA has not been agreed to: {DATA_USAGE_POLICY_URL}")
    click.echo(f"TCIA has a data usage policy: {DATA_USAGE_POLICY_URL}", err=True)
    click.echo(POLICY_IN_SHORT, err=True)
    if not click.confirm("Do you agree to it?", err=True):
        raise NotAgreed("who does not agree to the data usage policy of TCIA cannot mount it")
    agreement.agree()
