"""Bytes: series kept on disk, each downloaded once. See `store.py` for the face of this room."""
