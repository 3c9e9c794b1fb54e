r"""The words of an expression: what stands between \set NAME and the end of its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ml_postgres_optimization.workload.script.source import Source, printable

NAME_PATTERN = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*"
KEYWORDS = frozenset(
    "and or not is isnull notnull null true false case when then else end".split()  # noqa: SIM905
)
_WORDS = re.compile(
    rf"""
      (?P<space>     (?: [ \t\r\f\v] | \\\r?\n )+ )
    | (?P<double>    [0-9]+ (?: \.[0-9]* (?:[eE][-+]?[0-9]+)? | [eE][-+]?[0-9]+ ) | \.[0-9]+ (?:[eE][-+]?[0-9]+)? )
    | (?P<integer>   [0-9]+ )
    | (?P<variable>  :{NAME_PATTERN} )
    | (?P<name>      {NAME_PATTERN} )
    | (?P<operator>  <> | != | <= | >= | << | >> | [-+*/%=<>|&\#~(),] )
    | (?P<end>       \n | \Z )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word.

    Parameters
    ----------
    kind : str
        ``integer``, ``double``, ``variable``, ``name``, ``keyword``, ``operator`` or ``end``.
    text : str
        Keywords and names in lower case, variables without their colon.
    offset : int
        Where it begins.
    end : int
        Where it ends.
    """

    kind: str
    text: str
    offset: int
    end: int


def words(source: Source, offset: int) -> Iterator[Word]:
    """Yield the words from `offset` to the end of the line, the last of kind ``end``.

    A backslash before a newline continues the line.

    Raises
    ------
    UsageError
        If there is a character that no expression has.
    """
    while True:
        found = _WORDS.match(source.text, offset)
        if found is None:
            raise source.refuse(
                offset,
                f"'{printable(source.text[offset])}' belongs to no expression",
                "See the operators and functions in docs/workloads.md.",
            )
        if found.lastgroup != "space":
            yield _word(found)
        if found.lastgroup == "end":
            return
        offset = found.end()


def _word(found: re.Match[str]) -> Word:
    kind, text = str(found.lastgroup), found.group().lower()
    if kind == "variable":
        text = found.group()[1:]
    elif kind == "operator" and text == "!=":
        text = "<>"
    elif text in KEYWORDS:
        kind = "keyword"
    return Word(kind, text, found.start(), found.end())
