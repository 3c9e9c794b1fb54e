"""What is searched: knobs as Optuna distributions, and configurations as points of the unit cube."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import Knob, KnobValue
from ml_postgres_optimization.knobs.rendering import rounded
from ml_postgres_optimization.tuning.search.encoding import Axis, Cube, Floats, Idle, axis_of

# A knob with special values has a second parameter, which says whether one of them is taken.
_SPECIAL = ".special"
_ORDINARY = "no"
_When = tuple[tuple[str, Callable[[Any], bool]], ...]
# LlamaTune's best of 5, 10, 20 and 30 % (K. Kanellis et al., VLDB 2022, arXiv:2203.05128).
SPECIAL_SHARE = 0.2


# no slots, since what follows from the knobs is asked for thousands of times in a search, and is kept
@dataclass(frozen=True)
class SearchSpace:
    """The knobs that may be searched on this server.

    Parameters
    ----------
    knobs : mapping of str to Knob
        Each with more than one value to choose from.
    """

    knobs: Mapping[str, Knob]

    @classmethod
    def of(cls, catalogue: Catalogue, *, names: Sequence[str] | None = None) -> SearchSpace:
        """Take the tunable knobs of a confronted catalogue, or those of them that are in `names`."""
        searched = {name: knob for name, knob in catalogue.tunable.items() if knob.is_searched}
        chosen = {name: knob for name, knob in searched.items() if names is None or name in names}
        return cls({name: knob for name, knob in sorted(chosen.items()) if not _distribution(knob).single()})

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Each knob as an Optuna parameter of its name; special values as a second one, ``<name>.special``."""
        distributions: dict[str, BaseDistribution] = {}
        for name, knob in self.knobs.items():
            distributions[name] = _distribution(knob)
            if _has_specials(knob):
                choices = (_ORDINARY, *(str(value) for value in knob.special_values))
                distributions[name + _SPECIAL] = CategoricalDistribution(choices)
        return distributions

    @cached_property
    def choice_weights(self) -> dict[str, tuple[float, ...]]:
        """How often special values are taken in all, and each of them, where nothing is known yet."""
        weights = {}
        for name, knob in self.knobs.items():
            if _has_specials(knob):
                each = SPECIAL_SHARE / len(knob.special_values)
                weights[name + _SPECIAL] = (1 - SPECIAL_SHARE, *(each for _ in knob.special_values))
        return weights

    @cached_property
    def idle(self) -> tuple[Idle, ...]:
        """When parameters have no effect: a special value is taken instead, or what the knob depends on is off."""
        specials = [
            Idle(name, ((name + _SPECIAL, _is_special),)) for name, knob in self.knobs.items() if _has_specials(knob)
        ]
        return (*specials, *(rule for name in self.knobs for rule in self._idle_by_condition(name)))

    def _idle_by_condition(self, name: str) -> list[Idle]:
        only_if = self.knobs[name].only_if
        if only_if is None or only_if.knob not in self.knobs:
            return []
        other = self.knobs[only_if.knob]
        ordinary: _When = ((other.name, lambda value: not only_if.holds(rounded(value, other.kind))),)
        cases: list[_When] = [ordinary]
        if _has_specials(other):
            off = {str(value) for value in other.special_values if not only_if.holds(value)}
            special = other.name + _SPECIAL
            cases = [((special, off.__contains__),), ((special, _ORDINARY.__eq__), *ordinary)]
        own = [name, name + _SPECIAL] if _has_specials(self.knobs[name]) else [name]
        return [Idle(parameter, case) for parameter in own for case in cases]

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """The axes of the unit cube, one for each parameter."""
        return self.cube.axes

    @cached_property
    def cube(self) -> Cube:
        """The unit cube, with one point for all configurations that come to the same."""
        return Cube(self.distributions, self.choice_weights, self.idle)

    def parameters(self, configuration: Configuration) -> dict[str, Any]:
        """Return the Optuna parameters that stand for `configuration`; what lies outside goes to the nearest end."""
        return self.canonical(self._raw_parameters(configuration))

    def _raw_parameters(self, configuration: Configuration) -> dict[str, Any]:
        """Return them with the values of knobs that have no effect."""
        parameters: dict[str, Any] = {}
        for name, knob in self.knobs.items():
            value = configuration.get(name)
            special = next((str(special) for special in knob.special_values if special == value), _ORDINARY)
            parameters[name] = _nearest(value if special == _ORDINARY else None, knob)
            if _has_specials(knob):
                parameters[name + _SPECIAL] = special
        return parameters

    def canonical(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters with those that have no effect at the value that stands for all."""
        canonical = dict(parameters)
        for rule in self.idle:
            if all(holds(canonical[name]) for name, holds in rule.when):
                canonical[rule.parameter] = self.axes[rule.parameter].canonical
        return canonical

    def adapted(self, parameters: Mapping[str, Any], over: Configuration) -> dict[str, Any]:
        """Return the parameters nearest to those of another space; what that one lacks is as in `over`."""
        known = {name: knob for name, knob in self.knobs.items() if _fits(knob, parameters.get(name))}
        return self.parameters(over.replaced({name: _value(knob, parameters) for name, knob in known.items()}))

    def configuration(self, parameters: Mapping[str, Any], over: Configuration) -> Configuration:
        """Return `over` with the values that Optuna parameters stand for.

        Knobs without effect stay as they are, and so do those whose value is nearest to the level that the parameters
        name: a level stands for all values around it, and one that only rounds what is in force is no change.
        """
        here = self._levels(self._raw_parameters(over))
        there = self._levels(parameters)
        values = {
            name: over[name] if name in over and self._is_at(name, there, here) else _value(knob, parameters)
            for name, knob in self.knobs.items()
        }
        found = over.replaced(values)
        idle = {
            name
            for name, knob in self.knobs.items()
            if knob.only_if and not knob.only_if.holds(found.get(knob.only_if.knob))
        }
        return over.replaced({name: value for name, value in values.items() if name not in idle})

    def _is_at(self, name: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
        """Tell whether a knob's levels are those of what is in force."""
        special = name + _SPECIAL
        if _has_specials(self.knobs[name]) and (there[special] != here[special] or _is_special(there[special])):
            return bool(there[special] == here[special])
        return bool(there[name] == here[name])

    def _levels(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the level that stands for each parameter."""
        return {name: axis.nearest(parameters[name]) for name, axis in self.axes.items()}

    def parameters_of(self, names: Collection[str]) -> frozenset[str]:
        """Return the names of the parameters that stand for these knobs."""
        return frozenset(name for name in self.distributions if name.removesuffix(_SPECIAL) in names)

    def encode(self, configuration: Configuration) -> Floats:
        """Return the point of `configuration`, an array of shape (n_parameters,)."""
        point: Floats = self.cube.points([self.parameters(configuration)])[0]
        return point

    def decode(self, point: ArrayLike, over: Configuration) -> Configuration:
        """Return `over` with the values that lie at a point of the unit cube."""
        return self.configuration(self.cube.parameters(np.asarray(point, dtype=np.float64)), over)


def _has_specials(knob: Knob) -> bool:
    return bool(knob.special_values)


def _fits(knob: Knob, value: Any) -> bool:
    """Tell whether `value` is of the knob's kind, and one of its choices; the range does not matter."""
    if knob.kind == "enum":
        return value in knob.choices
    return isinstance(value, bool) if knob.kind == "bool" else _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_special(choice: str) -> bool:
    return choice != _ORDINARY


def _distribution(knob: Knob) -> BaseDistribution:
    """Return the distribution of the ordinary values."""
    if knob.kind == "bool":
        return CategoricalDistribution((False, True))
    if knob.kind == "enum":
        return CategoricalDistribution(knob.choices)
    low, high = knob.minimum or 0.0, knob.maximum or 0.0
    if knob.kind == "integer":
        lowest, highest = math.ceil(low), math.floor(high)
        return IntDistribution(lowest, max(lowest, highest), log=knob.log_scale and lowest >= 1)
    return FloatDistribution(low, high, log=knob.log_scale and low > 0)


def _nearest(value: KnobValue | None, knob: Knob) -> Any:
    """Return the parameter nearest to `value`; where there is nothing to go by, the one that stands for all."""
    distribution = _distribution(knob)
    if isinstance(distribution, CategoricalDistribution):
        return next((choice for choice in distribution.choices if choice == value), distribution.choices[0])
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        raise TypeError(f"a distribution of a kind that is not known: {distribution!r}")
    if value is None or isinstance(value, str):
        return axis_of(distribution).canonical
    bounded = min(max(value, distribution.low), distribution.high)
    return round(bounded) if isinstance(distribution, IntDistribution) else float(bounded)


def _value(knob: Knob, parameters: Mapping[str, Any]) -> KnobValue:
    special = parameters.get(knob.name + _SPECIAL, _ORDINARY)
    if special != _ORDINARY:
        # a special value that this server does not accept, from a study of another one, is left for the ordinary one
        return next((value for value in knob.special_values if str(value) == special), _ordinary(knob, parameters))
    return _ordinary(knob, parameters)


def _ordinary(knob: Knob, parameters: Mapping[str, Any]) -> KnobValue:
    return rounded(parameters[knob.name], knob.kind)
