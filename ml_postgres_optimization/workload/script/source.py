"""Where a script's text comes from, so that an error can say where it is."""

from __future__ import annotations

from dataclasses import dataclass

from ml_postgres_optimization.errors import UsageError


@dataclass(frozen=True, slots=True)
class Source:
    """A text, and what errors call it.

    Parameters
    ----------
    name : str
    text : str
    """

    name: str
    text: str

    def line(self, offset: int) -> int:
        """Return the line of a position, from 1."""
        return self.text.count("\n", 0, offset) + 1

    def refuse(self, offset: int, what: str, next_step: str) -> UsageError:
        """Return the error that says what is wrong at a position."""
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return UsageError(f"{self.name}, line {self.line(offset)}, column {column}: {what}", next_step)


def printable(text: str, limit: int = 60) -> str:
    """Return a text so that it fits in one line of a terminal, whatever is in it."""
    shortened = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shortened)
