"""Listings remembered: what an archive said, in memory and on disk, and when it is asked again."""
