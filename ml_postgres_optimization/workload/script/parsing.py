r"""The parser of scripts: SQL from the lexer, and what the meta commands between mean.

References
----------
PostgreSQL's documentation, pgbench, "Custom Scripts".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.command import (
    Assignment,
    Branch,
    Command,
    Conditional,
    Reference,
    Script,
    Sleep,
    Statement,
    Storing,
    statement,
)
from ml_postgres_optimization.workload.script.expression import NAME_PATTERN, Expression, Parsed, parse_expression
from ml_postgres_optimization.workload.script.lexing import Fragment, SqlLexer
from ml_postgres_optimization.workload.script.source import Source, printable

BUILT_IN = frozenset({"client_id", "default_seed", "random_seed", "scale"})
MAXIMUM_WEIGHT = 2**31 - 1
MAXIMUM_IF_DEPTH = 20
MAXIMUM_SLEEP_SECONDS = 86_400
_ARGUMENT = re.compile(r"(?:[ \t\r\f\v]|\\\r?\n)*(?P<word>(?:(?!\\\r?\n)\S)*)")
_NAME = re.compile(NAME_PATTERN)
_DURATION = re.compile(r"\+?(?P<count>[0-9]+)(?P<unit>[A-Za-z]*)")
_UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_IMPOSSIBLE = {
    "shell": r"\shell runs a command of this machine, which a load must not",
    "setshell": r"\setshell runs a command of this machine, which a load must not",
    "startpipeline": "pipelines are not supported",
    "endpipeline": "pipelines are not supported",
    "syncpipeline": "pipelines are not supported",
}
_INSTEAD = {
    "shell": "Do it beforehand, or in SQL.",
    "setshell": r"Use \set, or \gset behind a SELECT.",
    "startpipeline": r"Join statements by \; instead: they go to the server at once.",
    "endpipeline": "Remove it.",
    "syncpipeline": "Remove it.",
}


def parse_script(
    text: str, *, name: str, weight: int = 1, variables: Collection[str] = (), origin: str | None = None
) -> Script:
    r"""Parse a script of pgbench's language.

    Parameters
    ----------
    text : str
    name : str
    weight : int
        From 0 to 2147483647.
    variables : collection of str
        Names that will be set beside the built-in ones, by whoever plays it.
    origin : str, optional
        What errors call it; otherwise ``script <name>``.

    Returns
    -------
    Script

    Raises
    ------
    UsageError
        If it is no such script, uses a variable that nothing sets before, or has no command; the error says where.

    Examples
    --------
    >>> script = parse_script(r'''\set id random(1, 10 * :scale)
    ... SELECT * FROM orders WHERE id = :id;''', name="order")
    >>> [type(command).__name__ for command in script.commands]
    ['Assignment', 'Statement']
    """
    source = _source(origin or f"script {printable(name)}", text)
    if isinstance(weight, bool) or not 0 <= weight <= MAXIMUM_WEIGHT:
        raise UsageError(f"{source.name}: the weight is {weight}", f"Give a whole number from 0 to {MAXIMUM_WEIGHT}.")
    commands = _Parser(source, BUILT_IN.union(variables)).commands()
    if not commands:
        raise UsageError(f"{source.name}: there is no command in it", r"Write SQL statements, each ended by ;.")
    return Script(name, weight, commands)


def split_statements(text: str, *, origin: str) -> tuple[str, ...]:
    """Return the statements of a text of plain SQL, without their semicolons; `origin` is what errors call it.

    Raises
    ------
    UsageError
        If it has a meta command, or a quote, comment or parenthesis is not closed.
    """
    source, offset, found = _source(origin, text), 0, []
    lexer = SqlLexer(source)
    while offset < len(text):
        fragment = lexer.fragment(offset)
        if fragment.cut == "\\":
            raise source.refuse(fragment.end - 1, "there is a meta command", "Write plain SQL here.")
        if fragment.has_content:
            found.append(text[fragment.offset : fragment.end].removesuffix(";").rstrip())
        offset = fragment.end
    return tuple(found)


def _source(name: str, text: str) -> Source:
    source = Source(name, text)
    if "\0" in text:
        raise source.refuse(text.index("\0"), "there is a NUL character", "Save it as plain text in UTF-8.")
    return source


@dataclass(slots=True)
class _Block:
    r"""An \if that is not closed yet; the outermost block has no line of its own."""

    offset: int
    branches: list[Branch] = field(default_factory=list)
    line: int = 0
    condition: Expression | None = None
    commands: list[Command] = field(default_factory=list)

    def close_branch(self) -> None:
        """Keep the branch that was read."""
        self.branches.append(Branch(self.line, self.condition, tuple(self.commands)))
        self.commands = []


@dataclass(frozen=True, slots=True)
class _Line:
    r"""A meta command.

    Parameters
    ----------
    name : str
        In lower case.
    offset : int
        Where its backslash stands.
    end : int
        Where its name ends, and its arguments begin.
    """

    name: str
    offset: int
    end: int


class _Parser:
    """Reads a script from its beginning to its end."""

    def __init__(self, source: Source, known: frozenset[str]) -> None:
        self._source = source
        self._known = set(known)
        self._prefixes: set[str] = set()
        self._blocks = [_Block(0)]

    def commands(self) -> tuple[Command, ...]:
        """Read all."""
        lexer, offset = SqlLexer(self._source), 0
        while offset < len(self._source.text):
            fragment = lexer.fragment(offset)
            if fragment.has_content:
                self._blocks[-1].commands.append(self._statement(fragment))
            offset = self._meta(fragment.end) if fragment.cut == "\\" else fragment.end
        if len(self._blocks) > 1:
            raise self._source.refuse(self._blocks[-1].offset, r"\if has no \endif", r"Close it by a line \endif.")
        return tuple(self._blocks[0].commands)

    def _statement(self, fragment: Fragment) -> Statement:
        for reference, offset in fragment.references:
            if reference.is_certain:
                self._check_known(reference.name, offset)
        if any(words[:1] == ["copy"] and {"stdin", "stdout"}.intersection(words) for words in fragment.words):
            raise self._source.refuse(
                fragment.offset, "COPY from or to the client is not supported", "Use INSERT or SELECT instead."
            )
        fragment.pieces = [self._settled(piece) for piece in fragment.pieces]
        return statement(self._source.line(fragment.offset), fragment.trimmed(), joins=len(fragment.words) > 1)

    def _settled(self, piece: str | Reference) -> str | Reference:
        """Return a piece, as plain text where its ``:name`` cannot become a variable."""
        if isinstance(piece, str) or piece.is_certain or self._may_be_set(piece.name):
            return piece
        return f":{piece.name}"

    def _check_known(self, name: str, offset: int) -> None:
        if not self._may_be_set(name):
            raise self._source.refuse(
                offset,
                f"the variable :{printable(name)} is not set before",
                rf"Set it by \set {printable(name)} first.",
            )

    def _may_be_set(self, name: str) -> bool:
        # the names of a result's columns are known when it comes
        return name in self._known or any(name[:end] in self._prefixes for end in range(len(name) + 1))

    def _meta(self, offset: int) -> int:
        """Read the meta command whose backslash is behind `offset`, and return where it ends."""
        found = self._word(offset)
        line = _Line(found["word"].lower(), offset - 1, found.end())
        if line.name in _IMPOSSIBLE:
            raise self._source.refuse(line.offset, _IMPOSSIBLE[line.name], _INSTEAD[line.name])
        reader = self._readers().get(line.name)
        if reader is None:
            raise self._source.refuse(
                line.offset,
                rf"there is no meta command '\{printable(found['word'])}'",
                "There are " + ", ".join(rf"\{name}" for name in self._readers()) + ".",
            )
        return reader(line)

    def _readers(self) -> dict[str, Callable[[_Line], int]]:
        return {
            "set": self._set,
            "sleep": self._sleep,
            "if": self._if,
            "elif": self._elif,
            "else": self._else,
            "endif": self._endif,
            "gset": self._gset,
            "aset": self._aset,
        }

    def _set(self, line: _Line) -> int:
        found = self._word(line.end)
        if _NAME.fullmatch(found["word"]) is None:
            raise self._source.refuse(
                found.start("word"),
                rf"\set needs the name of a variable, not '{printable(found['word'])}'",
                "A name has letters, digits and underscores, and begins with no digit.",
            )
        parsed = self._expression(found.end())
        line_number = self._source.line(line.offset)
        self._blocks[-1].commands.append(Assignment(line_number, found["word"], parsed.expression))
        self._known.add(found["word"])
        return parsed.end

    def _sleep(self, line: _Line) -> int:
        (count, *unit), end = self._arguments(line, 1, 2)
        found = _DURATION.fullmatch(count)
        if found is not None and not (found["unit"] and unit):
            duration: int | str = int(found["count"][:20])
            unit = unit or [found["unit"] or "s"]
        elif _NAME.fullmatch(count[1:]) and count[0] == ":":
            duration, unit = count[1:], unit or ["s"]
            self._check_known(duration, line.offset)
        else:
            raise self._bad_sleep(line, count)
        unit_seconds = _UNIT_SECONDS.get(unit[0].lower())
        if unit_seconds is None:
            raise self._source.refuse(line.offset, f"'{printable(unit[0])}' is no unit of time", "Use us, ms or s.")
        if isinstance(duration, int) and duration * unit_seconds > MAXIMUM_SLEEP_SECONDS:
            raise self._bad_sleep(line, count)
        self._blocks[-1].commands.append(Sleep(self._source.line(line.offset), duration, unit_seconds))
        return end

    def _if(self, line: _Line) -> int:
        parsed = self._expression(line.end)
        if len(self._blocks) > MAXIMUM_IF_DEPTH:
            raise self._source.refuse(
                line.offset, rf"\if is nested more than {MAXIMUM_IF_DEPTH} deep", "Divide it over several scripts."
            )
        self._blocks.append(_Block(line.offset, line=self._source.line(line.offset), condition=parsed.expression))
        return parsed.end

    def _elif(self, line: _Line) -> int:
        parsed = self._expression(line.end)
        self._next_branch(line, parsed.expression)
        return parsed.end

    def _else(self, line: _Line) -> int:
        _, end = self._arguments(line, 0, 0)
        self._next_branch(line, None)
        return end

    def _endif(self, line: _Line) -> int:
        _, end = self._arguments(line, 0, 0)
        block = self._innermost(line)
        block.close_branch()
        self._blocks.pop()
        self._blocks[-1].commands.append(Conditional(block.branches[0].line, tuple(block.branches)))
        return end

    def _next_branch(self, line: _Line, condition: Expression | None) -> None:
        block = self._innermost(line)
        if block.condition is None:
            raise self._source.refuse(line.offset, rf"\{line.name} stands after \else", r"\else comes last.")
        block.close_branch()
        block.line, block.condition = self._source.line(line.offset), condition

    def _innermost(self, line: _Line) -> _Block:
        if len(self._blocks) == 1:
            raise self._source.refuse(line.offset, rf"\{line.name} has no \if", r"Begin with \if and a condition.")
        return self._blocks[-1]

    def _gset(self, line: _Line) -> int:
        return self._store(line, needs_one_row=True)

    def _aset(self, line: _Line) -> int:
        return self._store(line, needs_one_row=False)

    def _store(self, line: _Line, *, needs_one_row: bool) -> int:
        arguments, end = self._arguments(line, 0, 1)
        prefix = arguments[0] if arguments else ""
        commands = self._blocks[-1].commands
        before = commands[-1] if commands else None
        if not isinstance(before, Statement) or before.storing is not None:
            raise self._source.refuse(
                line.offset, rf"\{line.name} stands behind no SQL statement", "Put it in the place of the semicolon."
            )
        if before.joins:
            raise self._source.refuse(
                line.offset, rf"\{line.name} cannot follow \;", rf"Give the statement before \{line.name} to itself."
            )
        if prefix and not _NAME.fullmatch(prefix):
            raise self._source.refuse(
                line.offset,
                f"the prefix '{printable(prefix)}' makes no name of a variable",
                "It has letters, digits and underscores, and begins with no digit.",
            )
        commands[-1] = replace(before, storing=Storing(prefix, needs_one_row))
        self._prefixes.add(prefix)
        return end

    def _expression(self, offset: int) -> Parsed:
        parsed = parse_expression(self._source, offset)
        for name, position in parsed.variables:
            self._check_known(name, position)
        return parsed

    def _arguments(self, line: _Line, fewest: int, most: int) -> tuple[list[str], int]:
        """Return the words to the end of the line, and where it ends."""
        words, found = [], self._word(line.end)
        while found["word"]:
            words.append(found["word"])
            found = self._word(found.end())
        if fewest <= len(words) <= most:
            return words, found.end()
        wanted = f"{fewest} or {most}" if fewest < most else str(most) if most else "no"
        raise self._source.refuse(
            line.offset, rf"\{line.name} has {len(words)} arguments", f"It takes {wanted}, to the end of the line."
        )

    def _word(self, offset: int) -> re.Match[str]:
        found = _ARGUMENT.match(self._source.text, offset)
        if found is None:
            raise AssertionError("the pattern matches nothing too")
        return found

    def _bad_sleep(self, line: _Line, count: str) -> UsageError:
        return self._source.refuse(
            line.offset,
            rf"\sleep cannot take '{printable(count)}'",
            f"Give a whole number or :variable, then us, ms or s; {MAXIMUM_SLEEP_SECONDS} s at most.",
        )
