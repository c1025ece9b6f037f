"""The other process: it fetches, inflates, checks and writes a series, and the daemon only listens.

`messages` is what goes over the pipe, `fetching` what the process does, `pool` the daemon's end.
"""
