"""Texts of others, fit for a terminal and for a line of a log."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return a text in which all that a terminal could obey is written as an escape such as \\x1b."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
