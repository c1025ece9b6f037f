"""The data usage policy of TCIA: which archives it holds for, and whether this user has agreed to it.

That somebody agreed is a file in the user's data folder. It holds for the address of the policy that he was
shown: another one is asked about again. Defined here and only here: that rule and that file.
"""

import datetime as dt
import json
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from tciafs.errors import Unusable
from tciafs.policy import DATA_USAGE_POLICY_URL

__all__ = ["agree", "has_agreed", "must_agree"]

POLICY_DOMAIN = "cancerimagingarchive.net"
FILE_NAME = "policy.json"


def must_agree(url: str) -> bool:
    """Return whether the archive at an address is one of TCIA's, whose users agree to its policy."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    return host == POLICY_DOMAIN or host.endswith("." + POLICY_DOMAIN)


def has_agreed(folder: Path | None = None) -> bool:
    """Return whether this user has agreed to the policy; what cannot be read is no agreement.

    `folder` None is the user's data folder.
    """
    try:
        agreed = json.loads(_file(folder).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(agreed, dict) and agreed.get("policy") == DATA_USAGE_POLICY_URL


def agree(folder: Path | None = None) -> None:
    """Write down that this user agrees. Raises Unusable."""
    file = _file(folder)
    agreed = {"policy": DATA_USAGE_POLICY_URL, "agreed_at": dt.datetime.now(dt.UTC).isoformat()}
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps(agreed) + "\n")
    except OSError as error:
        raise Unusable(f"{file} could not be written: {error.strerror}") from error


def _file(folder: Path | None) -> Path:
    return (folder or platformdirs.user_data_path("tciafs")) / FILE_NAME
