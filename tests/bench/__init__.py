"""Benchmarks: each figure beside what it is compared with, taken in turn in one run."""
