"""A parsed expression: an immutable tree that pickles, since each operation in it is a function of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.expression.value import Stored, Value, boolean, read, truth, written


class Scope:
    """The variables of one play, and what it draws from.

    Parameters
    ----------
    variables : mapping of str to value
        What is set from the beginning.
    rng : random.Random
    """

    __slots__ = ("rng", "texts", "values")

    def __init__(self, variables: Mapping[str, Stored], rng: Random) -> None:
        self.rng = rng
        self.values: dict[str, Stored] = {**variables}
        # as they stand in SQL, but for integers, which need no call to be written
        self.texts: dict[str, int | str] = {name: written(value) for name, value in variables.items()}

    def set(self, name: str, value: Stored) -> None:
        """Set a variable."""
        self.values[name] = value
        self.texts[name] = written(value)


class Expression(Protocol):
    """What can be evaluated; any failure is a UsageError that does not say where."""

    @property
    def depth(self) -> int:
        """How many levels the tree has."""

    def evaluate(self, scope: Scope) -> Value:
        """Return the value in a scope."""


def _depth(*parts: Expression) -> int:
    return 1 + max((part.depth for part in parts), default=0)


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: Value

    @property
    def depth(self) -> int:
        """One level."""
        return 1

    def evaluate(self, scope: Scope) -> Value:
        """Return the literal."""
        return self.value


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable."""

    name: str

    @property
    def depth(self) -> int:
        """One level."""
        return 1

    def evaluate(self, scope: Scope) -> Value:
        """Return the variable's value, read out of its text where it is text."""
        try:
            value = scope.values[self.name]
        except KeyError:
            raise unset(self.name) from None
        return read(value) if type(value) is str else value  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function, which is NULL when an argument is."""

    function: Callable[..., Value]
    arguments: tuple[Expression, ...]

    @property
    def depth(self) -> int:
        """One level more than the deepest argument."""
        return _depth(*self.arguments)

    def evaluate(self, scope: Scope) -> Value:
        """Evaluate the arguments, and call the function."""
        values = [argument.evaluate(scope) for argument in self.arguments]
        return None if None in values else self.function(*values)


@dataclass(frozen=True, slots=True)
class Infix:
    """An operator between two operands: what `Call` does, at half its cost."""

    function: Callable[[Value, Value], Value]
    left: Expression
    right: Expression

    @property
    def depth(self) -> int:
        """One level more than the deeper side."""
        return _depth(self.left, self.right)

    def evaluate(self, scope: Scope) -> Value:
        """Evaluate both sides, and apply the operator."""
        left, right = self.left.evaluate(scope), self.right.evaluate(scope)
        return None if left is None or right is None else self.function(left, right)


@dataclass(frozen=True, slots=True)
class Draw:
    """A random draw, which is NULL when an argument is."""

    distribution: Callable[..., Value]
    arguments: tuple[Expression, ...]

    @property
    def depth(self) -> int:
        """One level more than the deepest argument."""
        return _depth(*self.arguments)

    def evaluate(self, scope: Scope) -> Value:
        """Evaluate the arguments, and draw."""
        values = [argument.evaluate(scope) for argument in self.arguments]
        return None if None in values else self.distribution(scope.rng, *values)


@dataclass(frozen=True, slots=True)
class Junction:
    """AND or OR: the right side is evaluated only where the left one does not decide.

    As in pgbench, and unlike SQL, NULL on the left makes it NULL whatever is on the right.
    """

    left: Expression
    right: Expression
    decisive: bool

    @property
    def depth(self) -> int:
        """One level more than the deeper side."""
        return _depth(self.left, self.right)

    def evaluate(self, scope: Scope) -> Value:
        """Evaluate the left side, and the right one where it is needed."""
        left = self.left.evaluate(scope)
        if left is None or boolean(left) == self.decisive:
            return left
        right = self.right.evaluate(scope)
        return None if right is None else boolean(right)


@dataclass(frozen=True, slots=True)
class Predicate:
    """IS [NOT] NULL, TRUE or FALSE: whether it is the very value, and no number that counts as true or false."""

    operand: Expression
    value: bool | None
    is_negated: bool

    @property
    def depth(self) -> int:
        """One level more than the operand."""
        return _depth(self.operand)

    def evaluate(self, scope: Scope) -> Value:
        """Return whether the operand is the value."""
        return (self.operand.evaluate(scope) is self.value) != self.is_negated


@dataclass(frozen=True, slots=True)
class Case:
    """CASE WHEN: the first branch whose condition is true."""

    branches: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression

    @property
    def depth(self) -> int:
        """One level more than the deepest part."""
        return _depth(self.otherwise, *(part for branch in self.branches for part in branch))

    def evaluate(self, scope: Scope) -> Value:
        """Evaluate conditions until one is true, and its result alone."""
        for condition, result in self.branches:
            if truth(condition.evaluate(scope)):
                return result.evaluate(scope)
        return self.otherwise.evaluate(scope)


def unset(name: str) -> UsageError:
    """Return the error for a variable that has no value."""
    return UsageError(
        f"the variable :{name} is not set", r"Set it before with \set or \gset on every way that leads here."
    )
