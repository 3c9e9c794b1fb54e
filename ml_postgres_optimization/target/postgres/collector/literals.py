"""Texts of queries without their values: ``pg_stat_statements`` leaves those of utility statements as written."""

from __future__ import annotations

import re

_BLOT = "'…'"
# What stands between quotes of any kind, an unfinished one up to the end; identifiers and comments alone are kept.
# From a comment with another in it on, whose end no regular expression finds, nothing is.
# PostgreSQL's manual, "Lexical Structure" (sql-syntax-lexical).
_QUOTED = re.compile(
    r"""(?P<kept> "(?:[^"]|"")*(?:"|\Z) | --[^\n]* | /\*(?:(?!/\*).)*?(?:\*/|\Z) )
    | /\*.*
    | (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)
    | '(?:[^']|'')*(?:'|\Z)
    | (?<![\w$])(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=tag)|\Z)""",
    re.VERBOSE | re.DOTALL,
)


def without_literals(statement: str) -> str:
    r"""Return `statement` with every quoted value blotted out, passwords of ``CREATE ROLE`` above all.

    Examples
    --------
    >>> without_literals("ALTER ROLE ann PASSWORD 'it''s sesame' /* by hand */")
    "ALTER ROLE ann PASSWORD '…' /* by hand */"
    >>> without_literals('SELECT "it\'s" FROM t WHERE a = $1')
    'SELECT "it\'s" FROM t WHERE a = $1'

    References
    ----------
    PostgreSQL's manual, "pg_stat_statements": constants are replaced in queries that can be planned. Seen on 14, 15
    and 18: a ``CREATE ROLE … PASSWORD '…'`` stands there with its password.
    """
    return _QUOTED.sub(lambda found: found["kept"] or _BLOT, statement)
