"""The Cancer Imaging Archive as folders: names from its listings, bytes from its series."""

__version__ = "0.1.0"
