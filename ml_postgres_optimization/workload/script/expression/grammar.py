"""The grammar of expressions, by precedence climbing.

References
----------
PostgreSQL's documentation, pgbench, "Built-in Operators", which lists them in increasing precedence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.expression import distributions, functions
from ml_postgres_optimization.workload.script.expression.tokens import Word, words
from ml_postgres_optimization.workload.script.expression.tree import (
    Call,
    Case,
    Constant,
    Draw,
    Expression,
    Infix,
    Junction,
    Predicate,
    Variable,
)
from ml_postgres_optimization.workload.script.expression.value import (
    INTEGER_MAXIMUM,
    INTEGER_MINIMUM,
    Value,
    real,
    whole,
)
from ml_postgres_optimization.workload.script.source import Source, printable

# Trees are walked, pickled and parsed by recursion, at up to five calls a level, within Python's limit of 1,000.
MAXIMUM_DEPTH = 60
_MAXIMUM_ARGUMENTS = 16
_OR, _AND, _NOT, _IS, _COMPARISON, _BITS, _SUM, _PRODUCT, _SIGN = range(1, 10)
_SEED = Variable("default_seed")


class _Operator(NamedTuple):
    precedence: int
    function: Callable[..., Value]


_INFIX = {
    "=": _Operator(_COMPARISON, functions.equal),
    "<>": _Operator(_COMPARISON, functions.unequal),
    "<": _Operator(_COMPARISON, functions.less),
    "<=": _Operator(_COMPARISON, functions.less_or_equal),
    ">": _Operator(_COMPARISON, functions.greater),
    ">=": _Operator(_COMPARISON, functions.greater_or_equal),
    "|": _Operator(_BITS, functions.bits_or),
    "#": _Operator(_BITS, functions.bits_xor),
    "&": _Operator(_BITS, functions.bits_and),
    "<<": _Operator(_BITS, functions.shift_left),
    ">>": _Operator(_BITS, functions.shift_right),
    "+": _Operator(_SUM, functions.add),
    "-": _Operator(_SUM, functions.subtract),
    "*": _Operator(_PRODUCT, functions.multiply),
    "/": _Operator(_PRODUCT, functions.divide),
    "%": _Operator(_PRODUCT, functions.modulo),
}
_JUNCTIONS = {"or": _OR, "and": _AND}
_TESTS = frozenset({"is", "isnull", "notnull"})
_LITERALS: dict[str, bool | None] = {"null": None, "true": True, "false": False}


class _Function(NamedTuple):
    fewest: int
    most: int
    node: Callable[[tuple[Expression, ...]], Expression]


def _call(function: Callable[..., Value]) -> Callable[[tuple[Expression, ...]], Expression]:
    return lambda arguments: Call(function, arguments)


def _draw(distribution: Callable[..., Value]) -> Callable[[tuple[Expression, ...]], Expression]:
    return lambda arguments: Draw(distribution, arguments)


def _seeded(function: Callable[..., Value], count: int) -> Callable[[tuple[Expression, ...]], Expression]:
    """Return what adds the default seed to a call with fewer than `count` arguments."""
    return lambda arguments: Call(function, arguments if len(arguments) == count else (*arguments, _SEED))


_FUNCTIONS = {
    "abs": _Function(1, 1, _call(functions.absolute)),
    # debug() prints its argument and returns it; under load there is nobody to read it
    "debug": _Function(1, 1, lambda arguments: arguments[0]),
    "double": _Function(1, 1, _call(real)),
    "exp": _Function(1, 1, _call(functions.exponential)),
    "greatest": _Function(1, _MAXIMUM_ARGUMENTS, _call(functions.greatest)),
    "hash": _Function(1, 2, _seeded(distributions.hash_murmur2, 2)),
    "hash_fnv1a": _Function(1, 2, _seeded(distributions.hash_fnv1a, 2)),
    "hash_murmur2": _Function(1, 2, _seeded(distributions.hash_murmur2, 2)),
    "int": _Function(1, 1, _call(whole)),
    "least": _Function(1, _MAXIMUM_ARGUMENTS, _call(functions.least)),
    "ln": _Function(1, 1, _call(functions.natural_logarithm)),
    "mod": _Function(2, 2, _call(functions.modulo)),
    "permute": _Function(2, 3, _seeded(distributions.permute, 3)),
    "pi": _Function(0, 0, _call(functions.pi)),
    "pow": _Function(2, 2, _call(functions.power)),
    "power": _Function(2, 2, _call(functions.power)),
    "random": _Function(2, 2, _draw(distributions.uniform)),
    "random_exponential": _Function(3, 3, _draw(distributions.exponential)),
    "random_gaussian": _Function(3, 3, _draw(distributions.gaussian)),
    "random_zipfian": _Function(3, 3, _draw(distributions.zipfian)),
    "sqrt": _Function(1, 1, _call(functions.square_root)),
}


class Parsed(NamedTuple):
    """An expression, where it ended, and the variables in it with where they stand."""

    expression: Expression
    end: int
    variables: tuple[tuple[str, int], ...]


def parse_expression(source: Source, offset: int) -> Parsed:
    """Parse the expression from `offset` to the end of its line.

    Raises
    ------
    UsageError
        If it is none; the error says where.
    """
    line = _Line(source, offset)
    expression = line.expression(_OR)
    line.finish()
    return Parsed(expression, line.word.end, tuple(line.variables))


class _Line:
    """The words of one line, read from left to right."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self._words = words(source, offset)
        self.word = next(self._words)
        self.variables: list[tuple[str, int]] = []
        self._level = 0

    def expression(self, least: int) -> Expression:
        """Read operands and the operators between them that bind at least as tightly as `least`."""
        self._level += 1
        self._check_depth(self._level)
        left = self._operand()
        while (precedence := self._precedence()) >= least:
            left = self._joined(left, precedence)
            self._check_depth(left.depth)
        self._check_depth(left.depth)
        self._level -= 1
        return left

    def finish(self) -> None:
        """Refuse anything before the end of the line."""
        if self.word.kind != "end":
            raise self._unexpected("an operator or the end of the line is expected")

    def take(self, *texts: str) -> Word:
        """Go past an operator or keyword that must be one of these."""
        if self.word.text not in texts or self.word.kind not in {"operator", "keyword"}:
            raise self._unexpected(f"{' or '.join(texts).upper()} is expected")
        return self._next()

    def _precedence(self) -> int:
        text = self.word.text
        if self.word.kind == "operator" and text in _INFIX:
            return _INFIX[text].precedence
        if self.word.kind == "keyword":
            return _IS if text in _TESTS else _JUNCTIONS.get(text, 0)
        return 0

    def _joined(self, left: Expression, precedence: int) -> Expression:
        if precedence == _IS:
            return self._test(left)
        operator = self._next().text
        right = self.expression(precedence + 1)
        if precedence == _COMPARISON and self._precedence() == _COMPARISON:
            raise self._unexpected("comparisons cannot be chained")
        if operator in _JUNCTIONS:
            return Junction(left, right, decisive=operator == "or")
        return Infix(_INFIX[operator].function, left, right)

    def _test(self, left: Expression) -> Expression:
        word = self._next()
        if word.text != "is":
            return Predicate(left, None, is_negated=word.text == "notnull")
        is_negated = self._skips("not")
        return Predicate(left, _LITERALS[self.take("null", "true", "false").text], is_negated)

    def _operand(self) -> Expression:
        word = self.word
        if word.kind == "keyword":
            return self._keyword()
        if word.kind == "operator":
            return self._prefix()
        if word.kind == "end":
            raise self._unexpected("an expression is expected")
        self._next()
        if word.kind == "name":
            return self._function(word)
        if word.kind == "variable":
            self.variables.append((word.text, word.offset))
            return Variable(word.text)
        return Constant(self._number(word))

    def _keyword(self) -> Expression:
        if self.word.text in _LITERALS:
            return Constant(_LITERALS[self._next().text])
        if self._skips("not"):
            return Call(functions.negation, (self.expression(_NOT),))
        if self._skips("case"):
            return self._case()
        raise self._unexpected("an expression is expected")

    def _prefix(self) -> Expression:
        if self._skips("("):
            inner = self.expression(_OR)
            self.take(")")
            return inner
        if self._skips("+"):
            return self.expression(_SIGN)
        if self._skips("~"):
            return Call(functions.complement, (self.expression(_BITS + 1),))
        if self._skips("-"):
            return self._negative()
        raise self._unexpected("an expression is expected")

    def _negative(self) -> Expression:
        # the smallest integer has no positive twin, so that it must be read together with its sign
        if self.word.kind == "integer" and self.word.text.lstrip("0") == str(INTEGER_MAXIMUM + 1):
            self._next()
            return Constant(INTEGER_MINIMUM)
        return Call(functions.negate, (self.expression(_SIGN),))

    def _case(self) -> Expression:
        branches = []
        self._expect_ahead("when")
        while self._skips("when"):
            condition = self.expression(_OR)
            self.take("then")
            branches.append((condition, self.expression(_OR)))
        otherwise = self.expression(_OR) if self._skips("else") else Constant(None)
        self.take("end")
        return Case(tuple(branches), otherwise)

    def _function(self, name: Word) -> Expression:
        function = _FUNCTIONS.get(name.text)
        if function is None:
            raise self._source.refuse(
                name.offset,
                f"there is no function '{printable(name.text)}'",
                f"There are {', '.join(_FUNCTIONS)}.",
            )
        self.take("(")
        arguments = self._arguments()
        if function.fewest <= len(arguments) <= function.most:
            return function.node(arguments)
        wanted = f"{function.fewest} to {function.most}" if function.fewest < function.most else str(function.most)
        raise self._source.refuse(
            name.offset, f"{name.text} is called with {len(arguments)} arguments", f"It takes {wanted}."
        )

    def _arguments(self) -> tuple[Expression, ...]:
        if self._skips(")"):
            return ()
        arguments = [self.expression(_OR)]
        while self.take(",", ")").text == ",":
            arguments.append(self.expression(_OR))
        return tuple(arguments)

    def _number(self, word: Word) -> Value:
        if word.kind == "integer":
            digits = word.text.lstrip("0")
            # Python refuses to read thousands of digits
            if len(digits) < 20 and int(digits or "0") <= INTEGER_MAXIMUM:
                return int(digits or "0")
        elif math.isfinite(number := float(word.text)) and (number or not word.text.split("e")[0].strip("0.")):
            return number
        raise self._source.refuse(
            word.offset, f"{printable(word.text)} is out of range", "Integers have 64 bits, doubles end at 1.7e308."
        )

    def _next(self) -> Word:
        word, self.word = self.word, next(self._words)
        return word

    def _skips(self, text: str) -> bool:
        if self.word.text != text or self.word.kind not in {"operator", "keyword"}:
            return False
        self._next()
        return True

    def _expect_ahead(self, text: str) -> None:
        if self.word.text != text:
            raise self._unexpected(f"{text.upper()} is expected")

    def _check_depth(self, depth: int) -> None:
        if depth > MAXIMUM_DEPTH:
            raise self._source.refuse(
                self.word.offset,
                f"the expression is more than {MAXIMUM_DEPTH} levels deep",
                r"Divide it over several \set.",
            )

    def _unexpected(self, expected: str) -> UsageError:
        seen = "the end of the line" if self.word.kind == "end" else f"'{printable(self.word.text)}'"
        return self._source.refuse(
            self.word.offset,
            f"{expected}, not {seen}",
            "An expression ends with its line, unless a backslash continues it; it holds no comments.",
        )
