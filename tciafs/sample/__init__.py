"""A small imaging archive that speaks the NBIA API on loopback: demo, tests and benchmarks.

It imports nothing of tciafs, so that it is an independent witness of the API: what the mount
understands of the server and what the server does are written twice, by different rules.
"""
