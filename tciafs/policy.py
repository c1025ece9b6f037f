"""The data usage policy of TCIA: where it is, and what it comes to."""

__all__ = ["DATA_USAGE_POLICY_URL", "POLICY_IN_SHORT"]

DATA_USAGE_POLICY_URL = "https://www.cancerimagingarchive.net/data-usage-policies-and-restrictions/"

POLICY_IN_SHORT = (
    "In short: do not try to identify or to contact participants, obey the licence of each data set, cite "
    "what you use, and acknowledge TCIA."
)
