"""A thousand cached images while the server is frozen or gone, also by a new mount; beside rclone."""

import signal
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.comparing import Line, in_seconds, ratio, seconds
from tests.bench.parts import Options, Part
from tests.bench.stage import FAILURES, cat, rclone_cached, rclone_serving, run, tciafs_mounted
from tests.relay import Relay
from tests.sample.running import running_sample

__all__ = ["AWAY"]

SERIES, SLICES = 5, 200
IMAGES = SERIES * SLICES
PATIENCE_S = 60.0
"""Who has not read a thousand cached images by then waits for the server."""

PATIENT = "BENCH/BENCH-001"
BRIEF = ("--connect-timeout", "5s", "--stall-timeout", "5s", "--listing-timeout", "10s")

States = dict[str, list[float | None]]
"""Seconds to read all images, round by round; None where that failed or took too long."""


@dataclass(frozen=True, slots=True)
class _Server:
    """A server that can be frozen, and refused."""

    process: "subprocess.Popen[str] | subprocess.Popen[bytes]"
    relay: Relay

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it be there, and say nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Let nobody listen at its address."""
        self.relay.refuse()
        try:
            yield
        finally:
            self.relay.listen()


def _away(options: Options) -> Iterator[Line]:
    """Put both through the same states; what rclone serves is a copy of what is in the mount."""
    ours, theirs = States(), States()
    plain, rounds = options.scratch / "plain", options.rounds
    with (
        running_sample("--bench-slices", str(SLICES), "--bench-series", str(SERIES)) as sample,
        Relay(sample.url) as relay,
    ):
        url, folder = relay.url, options.scratch / "ours"
        with _tciafs(url, folder) as patient:
            run("cp", "-r", "--no-preserve=mode", patient, plain)
        _in_all_states(ours, _Server(sample.process, relay), lambda: _tciafs(url, folder), rounds)
    with rclone_serving(plain) as (served, process), Relay(served) as relay:
        address, place = relay.url, options.scratch / "rclone"
        _in_all_states(theirs, _Server(process, relay), lambda: rclone_cached(address, place), rounds)
    yield from (_line(state, ours, theirs) for state in ours)


@contextmanager
def _tciafs(url: str, folder: Path) -> Iterator[Path]:
    """Mount the sample, and give the patient with the images."""
    with tciafs_mounted(url, folder, *BRIEF) as mount:
        yield mount.path / PATIENT


def _in_all_states(
    states: States, server: _Server, mounted: Callable[[], AbstractContextManager[Path]], rounds: int
) -> None:
    """Read all images undisturbed, then without the server, then again by mounts that began without it."""
    away: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
        "undisturbed": nullcontext,
        "frozen": server.frozen,
        "refused": server.refused,
    }
    with mounted() as folder:
        images = sorted(folder.glob("*/*/*.dcm"))
        cat(images)
        for _ in range(rounds):
            for state, happens in away.items():
                with happens():
                    _read(states, state, images)
    for _ in range(rounds):
        for state, happens in away.items():
            with happens(), mounted():
                _read(states, f"{state}, mounted again", images)


def _read(states: States, state: str, images: Sequence[Path]) -> None:
    took_s: float | None = None
    with suppress(*FAILURES):
        took_s = seconds(run, "cat", "--", *images, timeout_s=PATIENCE_S, stderr=subprocess.DEVNULL)
    states.setdefault(state, []).append(took_s)


def _line(state: str, ours: States, theirs: States) -> Line:
    return Line(
        f"{IMAGES:,} cached images, server {state}",
        f"mount: {_said(ours[state])}",
        f"rclone mount, cache full: {_said(theirs[state])}",
        _verdict(state, ours),
    )


def _said(values_s: Sequence[float | None]) -> str:
    had = [each for each in values_s if each is not None]
    failed = len(values_s) - len(had)
    return ", ".join([*([in_seconds(had)] if had else []), *([f"not read, {failed}x"] if failed else [])])


def _verdict(state: str, ours: States) -> str:
    """Compare with an undisturbed server, and a mount that is as old."""
    base = state.replace("frozen", "undisturbed").replace("refused", "undisturbed")
    pairs = zip(ours[state], ours[base], strict=True)
    ratios = [there / here for here, there in pairs if here is not None and there is not None]
    if state == base or not ratios:
        return ""
    return f"{ratio(statistics.median(ratios), 'undisturbed')} (goal: the same)"


AWAY = Part("away", "cached images while the server is frozen or gone, beside rclone", ("rclone",), _away)
