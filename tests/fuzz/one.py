"""`python -m tests.fuzz.one TARGET FOLDER [-OPTION ...]`: one target under atheris, until it ends itself."""

import logging
import sys

import atheris

# What atheris is to see inside of must be imported here for the first time.
with atheris.instrument_imports(include=["tciafs"]):
    from tests.fuzz import targets

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    name, place, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options, place], targets.TARGETS[name])
    atheris.Fuzz()
