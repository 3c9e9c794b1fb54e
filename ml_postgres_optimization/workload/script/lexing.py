r"""Where SQL text is cut: at semicolons and at meta commands, though not in quotes, comments or parentheses.

References
----------
PostgreSQL's documentation, "Lexical Structure"; its client programs cut the same text in the same places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.command import Reference
from ml_postgres_optimization.workload.script.expression import NAME_PATTERN
from ml_postgres_optimization.workload.script.source import Source

_ESCAPED = r"'(?:[^'\\]|\\.|'')*+'"
_TOKEN = re.compile(
    rf"""
      (?P<space>      \s+ )
    | (?P<comment>    --[^\n]* )
    | (?P<block>      /\* )
    | (?P<escaped>    [eE]{_ESCAPED} (?: (?: [ \t\r\f\v] | --[^\n]* )*+ \n (?: \s | --[^\n]*\n )*+ {_ESCAPED} )*+ )
    | (?P<quoted>     '(?:[^']|'')*+' | "(?:[^"]|"")*+" )
    | (?P<dollar>     \$ (?: {NAME_PATTERN} )? \$ )
    | (?P<word>       [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<number>     \$? [0-9][A-Za-z0-9_.]* )
    | (?P<colons>     ::+ )
    | (?P<variable>   :{NAME_PATTERN} )
    | (?P<semicolon>  ; )
    | (?P<forced>     \\[;:] )
    | (?P<backslash>  \\ )
    | (?P<bracket>    [][()] )
    | (?P<unclosed>   ['"] )
    | (?P<other>      . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_QUOTED_VARIABLE = re.compile(rf"(?<!:):({NAME_PATTERN})")
_ROUTINES = frozenset({"function", "procedure"})
_CLOSE_IT = "Close it; a quote is doubled inside a quote."


@dataclass(slots=True)
class Fragment:
    r"""The SQL between two cuts.

    Parameters
    ----------
    offset : int
        Where its text begins.
    pieces : list of str and Reference
    references : list of tuple of Reference and int
        Every variable, and where it stands.
    words : list of list of str
        The words outside quotes in lower case, of each statement that ``\\;`` joins.
    end : int
        Where it was cut.
    cut : str
        ``;``, ``\\`` for a meta command, or nothing at the end of the text.
    """

    offset: int
    pieces: list[str | Reference] = field(default_factory=list)
    references: list[tuple[Reference, int]] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=lambda: [[]])
    end: int = 0
    cut: str = ""
    has_content: bool = False

    def trimmed(self) -> tuple[str | Reference, ...]:
        """Return the pieces without white space around them, neighbouring text in one piece."""
        merged: list[str | Reference] = []
        for is_text, group in groupby(self.pieces, lambda piece: isinstance(piece, str)):
            several = list(group)
            merged += ["".join(map(str, several))] if is_text else several
        if merged and isinstance(merged[-1], str):
            merged[-1] = merged[-1].rstrip()
        return tuple(piece for piece in merged if piece != "")


class SqlLexer:
    """Reads one fragment of SQL after another.

    Parameters
    ----------
    source : Source
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def fragment(self, offset: int) -> Fragment:
        """Return what stands from `offset` to the next cut.

        Raises
        ------
        UsageError
            If a quote, comment or parenthesis is not closed.
        """
        return _Reading(self._source, offset).fragment()


class _Reading:
    """One fragment while it is read."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self._position = offset
        self._read = Fragment(offset)
        self._parentheses: list[int] = []
        self._brackets = 0
        self._routine_depth = 0

    def fragment(self) -> Fragment:
        """Read to the next cut."""
        while (found := _TOKEN.match(self._source.text, self._position)) is not None:
            kind = str(found.lastgroup)
            if self._is_cut(kind):
                return self._cut(found.group(), found.end())
            self._take(kind, found)
        return self._cut("", self._position)

    def _is_cut(self, kind: str) -> bool:
        if kind == "semicolon":
            return not self._parentheses and not self._routine_depth
        return kind == "backslash"

    def _cut(self, cut: str, end: int) -> Fragment:
        if self._parentheses:
            raise self._source.refuse(
                self._parentheses[-1], "a parenthesis is not closed", "Close it before the statement ends."
            )
        self._read.cut, self._read.end = cut, end
        return self._read

    def _take(self, kind: str, found: re.Match[str]) -> None:
        if kind in {"space", "comment"} and not self._read.pieces:
            self._position = self._read.offset = found.end()
            return
        end = self._end(kind, found)
        text = self._source.text[found.start() : end]
        if kind == "variable":
            self._refer(text[1:], found.start(), is_certain=not self._brackets)
        elif kind in {"escaped", "quoted", "dollar", "comment", "block"}:
            self._take_opaque(text, found.start())
        else:
            self._take_plain(kind, text, found.start())
        self._read.has_content |= kind not in {"space", "comment", "block", "forced"}
        self._position = end

    def _take_opaque(self, text: str, offset: int) -> None:
        """Take a quote or comment, with the variables that may be in it."""
        position = 0
        for found in _QUOTED_VARIABLE.finditer(text):
            self._read.pieces.append(text[position : found.start()])
            self._refer(found[1], offset + found.start(), is_certain=False)
            position = found.end()
        self._read.pieces.append(text[position:])

    def _take_plain(self, kind: str, text: str, offset: int) -> None:
        if kind == "word":
            self._note(text.lower())
        elif kind == "bracket":
            self._balance(text, offset)
        elif text == r"\;":
            self._read.words.append([])
        self._read.pieces.append(text.removeprefix("\\") if kind == "forced" else text)

    def _refer(self, name: str, offset: int, *, is_certain: bool) -> None:
        reference = Reference(name, is_certain)
        self._read.pieces.append(reference)
        self._read.references.append((reference, offset))

    def _note(self, word: str) -> None:
        """Follow BEGIN ATOMIC to its END: the semicolons in the body of a routine cut nothing."""
        if self._is_routine() and not self._parentheses:
            if word == "begin" or (word == "case" and self._routine_depth):
                self._routine_depth += 1
            elif word == "end" and self._routine_depth:
                self._routine_depth -= 1
        self._read.words[-1].append(word)

    def _is_routine(self) -> bool:
        begun = self._read.words[-1][:4]
        kind = begun[3:4] if begun[1:3] == ["or", "replace"] else begun[1:2]
        return begun[:1] == ["create"] and bool(_ROUTINES.intersection(kind))

    def _balance(self, bracket: str, offset: int) -> None:
        if bracket == "(":
            self._parentheses.append(offset)
        elif bracket == ")":
            # one that closes nothing is for the server to complain about
            del self._parentheses[-1:]
        else:
            self._brackets = max(0, self._brackets + (1 if bracket == "[" else -1))

    def _end(self, kind: str, found: re.Match[str]) -> int:
        if kind == "dollar":
            end = self._source.text.find(found.group(), found.end())
            if end < 0:
                raise self._unclosed(found.start(), f"the quote {found.group()}")
            return end + len(found.group())
        if kind == "block":
            return self._end_of_comment(found)
        if kind == "unclosed":
            raise self._unclosed(found.start(), f"the quote {found.group()}")
        return found.end()

    def _end_of_comment(self, opening: re.Match[str]) -> int:
        depth = 1
        for edge in _COMMENT_EDGE.finditer(self._source.text, opening.end()):
            depth += 1 if edge.group() == "/*" else -1
            if depth == 0:
                return edge.end()
        raise self._unclosed(opening.start(), "the comment /*")

    def _unclosed(self, offset: int, what: str) -> UsageError:
        return self._source.refuse(offset, f"{what} is not closed", _CLOSE_IT)
