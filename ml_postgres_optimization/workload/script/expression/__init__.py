r"""The expressions of \set and \if: parsed once, evaluated for every transaction."""

from ml_postgres_optimization.workload.script.expression.grammar import Parsed, parse_expression
from ml_postgres_optimization.workload.script.expression.tokens import NAME_PATTERN
from ml_postgres_optimization.workload.script.expression.tree import Expression, Scope, unset
from ml_postgres_optimization.workload.script.expression.value import Stored, Value, read, shown, truth, whole

__all__ = [
    "NAME_PATTERN",
    "Expression",
    "Parsed",
    "Scope",
    "Stored",
    "Value",
    "parse_expression",
    "read",
    "shown",
    "truth",
    "unset",
    "whole",
]
