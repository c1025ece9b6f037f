"""The archive as NBIA serves it."""
