"""What a mount needs, looked at piece by piece: FUSE, the cache folder, the way to the archive, the login.

Each look is a `Finding`: what was seen, and where something is wrong what to do about it. Changes nothing.
"""

import datetime as dt
import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.http.probe import Answer, addresses_of, ask_once, proxy_for
from tciafs.archives.idc.index import INSTALL, installed_index
from tciafs.archives.nbia.login import ask_for_tokens, token_url
from tciafs.archives.opening import archives_meant, lacks_index
from tciafs.credentials import LoginStore, login_for
from tciafs.errors import TciafsError
from tciafs.filesystem.mountpoint import require_fuse
from tciafs.settings import Settings

__all__ = ["Finding", "findings"]

FUSE_CONF = Path("/etc/fuse.conf")
CLOCK_TOLERANCE_S = 300.0
"""Certificates and tokens are good from one moment to another; five minutes are what Kerberos allows, too."""

NETWORK_FILE_SYSTEMS = frozenset(
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "glusterfs"]
)
IDC_QUESTION = "idc-open-data?list-type=2&max-keys=1"
"""What anybody may ask the buckets of the Imaging Data Commons."""

TOOL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one thing; `remedy` is "" where it is as it should be, as far as can be seen."""

    what: str
    said: str
    remedy: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing is to be done."""
        return not self.remedy


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Yield what is found, one thing after the other; what depends on what is broken is left out."""
    yield _fuse()
    yield _library()
    if settings.allow_other:
        yield _allow_other()
    yield _cache_folder(settings)
    if settings.archive == "sample":
        yield Finding("archive", "the bundled sample, which needs no network")
        return
    limits = HttpLimits(connect_timeout_s=settings.connect_timeout, stall_timeout_s=settings.stall_timeout)
    meant = archives_meant(settings.archive, settings.url, settings.idc_index)
    if lacks_index(settings.archive, settings.url, settings.idc_index):
        yield Finding("index", f"of the Imaging Data Commons: not installed, so NBIA is alone ({INSTALL})")
    if "idc" in meant:
        yield _idc_index(settings)
        async for finding in _way(settings, limits, settings.idc_url, IDC_QUESTION):
            yield finding
    if "nbia" in meant:
        async for finding in _way(settings, limits, settings.url, None):
            yield finding


async def _way(
    settings: Settings, limits: HttpLimits, url: str, question: str | None
) -> AsyncIterator[Finding]:
    """Yield what is found on the way to a server; without a question to NBIA, which alone has users."""
    proxy = proxy_for(url)
    if proxy is not None:
        yield Finding("proxy", f"{proxy}, as the environment says")
    else:
        name = await _name(url)
        yield name
        if not name.is_good:
            return
    answer = await _archive(url, question, limits, proxy)
    if isinstance(answer, Finding):
        yield answer
        return
    yield _status(answer, proxy)
    yield _clock(answer)
    if question is None:
        yield await _login(settings, limits)


def _idc_index(settings: Settings) -> Finding:
    try:
        folder = settings.idc_index or installed_index()
    except TciafsError as error:
        said, _, remedy = str(error).partition(": ")
        return Finding("index", said, remedy)
    if not (folder / "idc_index.parquet").is_file():
        return Finding("index", f"there is no idc_index.parquet in {folder}", "check --idc-index")
    return Finding("index", f"of the Imaging Data Commons, in {folder}")


def _fuse() -> Finding:
    try:
        require_fuse()
    except TciafsError as error:
        said, _, remedy = str(error).partition("; ")
        return Finding("FUSE", said, remedy or error.hint)
    version = subprocess.run(
        ["fusermount3", "--version"], check=False, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S
    )
    return Finding("FUSE", f"/dev/fuse can be opened, {' '.join(version.stdout.split())}")


def _library() -> Finding:
    try:
        library = importlib.import_module("pyfuse3")
    except ImportError as error:
        return Finding("pyfuse3", f"cannot be loaded: {error}", "apt-get install libfuse3-3")
    return Finding("pyfuse3", f"version {library.__version__}")


def _allow_other() -> Finding:
    try:
        lines = FUSE_CONF.read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    if os.geteuid() == 0 or "user_allow_other" in (line.strip() for line in lines):
        return Finding("allow_other", "is permitted")
    return Finding(
        "allow_other", f"is not permitted by {FUSE_CONF}", "have root add the line user_allow_other to it"
    )


def _cache_folder(settings: Settings) -> Finding:
    folder = settings.cache_dir or platformdirs.user_cache_path("tciafs")
    remedy = "choose another with --cache-dir"
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".tciafs-doctor-"):
            pass
        free_bytes = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding("cache folder", f"{folder} cannot be written: {error.strerror}", remedy)
    if (kind := _file_system_of(existing)) in NETWORK_FILE_SYSTEMS:
        return Finding(
            "cache folder", f"{folder} is on a network file system ({kind})", f"{remedy}, on a disk"
        )
    said = f"{folder}, {_gigabytes(free_bytes)} free, at most {_gigabytes(settings.cache_size)} to be used"
    return Finding("cache folder", said)


def _file_system_of(folder: Path) -> str:
    """Return the type of the file system that a folder is on, "" if it is not known."""
    command = ["stat", "--file-system", "--format=%T", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S)
    return done.stdout.strip()


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.3g}G"


async def _name(url: str) -> Finding:
    try:
        addresses = await addresses_of(url)
    except TciafsError as error:
        return Finding("name", str(error), "check the network, DNS (/etc/resolv.conf) and --url")
    return Finding("name", f"has {len(addresses)} address{'es' * (len(addresses) > 1)}: {addresses[0]}")


async def _archive(url: str, question: str | None, limits: HttpLimits, proxy: str | None) -> Answer | Finding:
    """Return what the archive answered, or why it did not."""
    try:
        return await ask_once(url, limits, question)
    except TciafsError as error:
        said = str(error)
        if "certificate" in said and "not yet valid" in said:
            return Finding(
                "archive", said, f"is the clock wrong? It shows {dt.datetime.now():%Y-%m-%d %H:%M}"
            )
        if "certificate" in said:
            return Finding(
                "archive", said, "if a proxy reads along, ask those who run it for its certificate"
            )
        if proxy is not None:
            return Finding("archive", said, f"check the proxy {proxy} (HTTPS_PROXY, NO_PROXY)")
        return Finding("archive", said, error.hint)


def _status(answer: Answer, proxy: str | None) -> Finding:
    said = f"answers with status {answer.status} after {answer.took_s:.1f} s"
    if 200 <= answer.status < 300:
        return Finding("archive", said)
    if answer.status == 407:
        return Finding(
            "archive", said, f"the proxy {proxy} wants a user: HTTPS_PROXY=http://USER:PASSWORD@HOST"
        )
    if answer.status >= 500:
        return Finding("archive", said, "it fails at the moment; what is cached stays readable")
    return Finding("archive", said, "check --url, which ends in /nbia-api/services, and --api")


def _clock(answer: Answer) -> Finding:
    if answer.server_time is None:
        return Finding("clock", "the archive does not say what time it is")
    ahead_s = (dt.datetime.now(dt.UTC) - answer.server_time).total_seconds()
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return Finding("clock", "agrees with that of the archive")
    which = "ahead of" if ahead_s > 0 else "behind"
    off = dt.timedelta(seconds=round(abs(ahead_s)))
    return Finding("clock", f"is {off} {which} that of the archive", "set it, or let NTP do so (timedatectl)")


async def _login(settings: Settings, limits: HttpLimits) -> Finding:
    try:
        login = login_for(
            token_url(settings.url), settings.user, settings.password_file, LoginStore.of_user()
        )
        if login is None:
            return Finding("login", "none: the archive is asked as a guest")
        await ask_for_tokens(settings.url, login, limits)
    except TciafsError as error:
        return Finding("login", str(error), "use tciafs login, or mend --user and --password-file")
    return Finding("login", f"{login.user} is logged in")
