"""The archive as the Imaging Data Commons holds it."""
