"""Somebody else's servers: one module a remote system, all speaking `model.Archive`."""
