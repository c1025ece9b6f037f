"""What comes from outside, as it never should: targets that must stand any bytes at all.

`make fuzz` runs them under atheris, which looks for bytes that reach new code; the ordinary tests run each on
what has ever been found, and on a few thousand random inputs.
"""
