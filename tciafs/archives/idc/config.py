"""How to reach the NCI Imaging Data Commons; apart from `idc`, which who asks NBIA need not load."""

import msgspec

from tciafs.archives.http.client import USER_AGENT
from tciafs.archives.http.limits import HttpLimits

__all__ = ["DEFAULT_URL", "IdcConfig"]

DEFAULT_URL = "https://s3.us-east-1.amazonaws.com"


class IdcConfig(msgspec.Struct, frozen=True, tag=True):
    """How to reach IDC: plain values, which JSON can carry to a worker.

    `table` is the file that `making.make_table` makes; what headers said is remembered beside it. `url`
    is the server of the buckets, `retries` are the attempts after the first.
    """

    table: str
    url: str = DEFAULT_URL
    retries: int = 4
    limits: HttpLimits = msgspec.field(default_factory=HttpLimits)
    user_agent: str = USER_AGENT
