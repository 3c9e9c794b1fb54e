"""Where a script's text comes from, so that an error can say where it is."""

from __future__ import annotations

import re
from bisect import bisect_right

from ml_postgres_optimization.errors import UsageError


class Source:
    """A text, and what errors call it.

    Parameters
    ----------
    name : str
    text : str
    """

    __slots__ = ("_lines", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]

    def line(self, offset: int) -> int:
        """Return the line of a position, from 1."""
        return bisect_right(self._lines, offset)

    def refuse(self, offset: int, what: str, next_step: str) -> UsageError:
        """Return the error that says what is wrong at a position."""
        line = self.line(offset)
        column = offset - self._lines[line - 1] + 1
        return UsageError(f"{self.name}, line {line}, column {column}: {what}", next_step)


def printable(text: str, limit: int = 60) -> str:
    """Return a text so that it fits in one line of a terminal, whatever is in it."""
    shortened = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shortened)
