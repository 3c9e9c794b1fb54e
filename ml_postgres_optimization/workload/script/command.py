r"""What a script consists of: SQL statements, and the meta commands \set, \sleep and \if."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.workload.script.expression import Expression, unset


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable in the text of a statement.

    Parameters
    ----------
    name : str
    is_certain : bool
        Whether it can be nothing else. In a quote, a comment or an array slice, ``:name`` may be just that text, and
        is left alone where there is no such variable.
    """

    name: str
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Storing:
    r"""What becomes of a statement's result.

    Parameters
    ----------
    prefix : str
        Goes before the name of each column, to make the name of a variable.
    needs_one_row : bool
        True for \gset. False for \aset: no row stores nothing, and of several the last is stored.
    """

    prefix: str
    needs_one_row: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """What is sent to the server at once: a statement, or several that ``\\;`` joins.

    Parameters
    ----------
    line : int
    pieces : tuple of str and Reference
        The text, in its order.
    template : str
        The same for ``%`` with a mapping; without references the text itself.
    has_references : bool
    storing : Storing or None
    joins : bool
        Whether it is several statements.
    """

    line: int
    pieces: tuple[str | Reference, ...]
    template: str
    has_references: bool
    storing: Storing | None = None
    joins: bool = False

    def text(self, texts: Mapping[str, int | str]) -> str:
        """Return the SQL, with the variables in it as `texts` has them.

        Raises
        ------
        UsageError
            If a variable is not set that can be nothing but a variable.
        """
        if not self.has_references:
            return self.template
        try:
            return self.template % texts
        except KeyError:
            return "".join(_text_of(piece, texts) for piece in self.pieces)


def statement(line: int, pieces: tuple[str | Reference, ...], *, joins: bool = False) -> Statement:
    """Return a statement made of these pieces."""
    has_references = any(isinstance(piece, Reference) for piece in pieces)
    templates = (piece.replace("%", "%%") if isinstance(piece, str) else f"%({piece.name})s" for piece in pieces)
    template = "".join(templates) if has_references else "".join(map(str, pieces))
    return Statement(line, pieces, template, has_references, joins=joins)


def _text_of(piece: str | Reference, texts: Mapping[str, int | str]) -> str:
    if isinstance(piece, str):
        return piece
    if piece.name in texts:
        return str(texts[piece.name])
    if piece.is_certain:
        raise unset(piece.name)
    return f":{piece.name}"


@dataclass(frozen=True, slots=True)
class Assignment:
    r"""\set: a variable becomes the value of an expression."""

    line: int
    name: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class Sleep:
    r"""\sleep: a pause.

    Parameters
    ----------
    line : int
    duration : int or str
        In units, or the name of the variable that says how many.
    unit_seconds : float
    """

    line: int
    duration: int | str
    unit_seconds: float


@dataclass(frozen=True, slots=True)
class Branch:
    r"""What stands after \if, \elif or \else; the condition of \else is None."""

    line: int
    condition: Expression | None
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Conditional:
    r"""\if to \endif: the first branch whose condition is true."""

    line: int
    branches: tuple[Branch, ...]


Command = Statement | Assignment | Sleep | Conditional


@dataclass(frozen=True, slots=True)
class Script:
    """A script of pgbench's language; a value that can be sent to another process.

    Parameters
    ----------
    name : str
    weight : int
        How often it is played, in proportion to the other scripts.
    commands : tuple of Command
    """

    name: str
    weight: int
    commands: tuple[Command, ...]
