"""What is searched: knobs as Optuna distributions, and configurations as points of the unit cube."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import Knob, KnobValue
from ml_postgres_optimization.knobs.rendering import rounded
from ml_postgres_optimization.tuning.search.encoding import Axis, Floats, axes_of

# A knob with special values has a second parameter, which says whether one of them is taken.
_SPECIAL = ".special"
_ORDINARY = "no"
# LlamaTune's best of 5, 10, 20 and 30 % (K. Kanellis et al., VLDB 2022, arXiv:2203.05128).
SPECIAL_SHARE = 0.2


@dataclass(frozen=True, slots=True)
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
        chosen = {name: knob for name, knob in catalogue.tunable.items() if names is None or name in names}
        return cls({name: knob for name, knob in sorted(chosen.items()) if not _distribution(knob).single()})

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Each knob as an Optuna parameter of its name; special values as a second one, ``<name>.special``."""
        distributions: dict[str, BaseDistribution] = {}
        for name, knob in self.knobs.items():
            distributions[name] = _distribution(knob)
            if _has_specials(knob):
                choices = (_ORDINARY, *(str(value) for value in knob.special_values))
                distributions[name + _SPECIAL] = CategoricalDistribution(choices)
        return distributions

    @property
    def choice_weights(self) -> dict[str, tuple[float, ...]]:
        """How often special values are taken in all, and each of them, where nothing is known yet."""
        weights = {}
        for name, knob in self.knobs.items():
            if _has_specials(knob):
                each = SPECIAL_SHARE / len(knob.special_values)
                weights[name + _SPECIAL] = (1 - SPECIAL_SHARE, *(each for _ in knob.special_values))
        return weights

    @property
    def axes(self) -> dict[str, Axis]:
        """The axes of the unit cube, one for each parameter."""
        return axes_of(self.distributions, self.choice_weights)

    def parameters(self, configuration: Configuration) -> dict[str, Any]:
        """Return the Optuna parameters that stand for `configuration`; what lies outside goes to the nearest end."""
        parameters: dict[str, Any] = {}
        for name, knob in self.knobs.items():
            value = configuration.get(name)
            special = next((str(special) for special in knob.special_values if special == value), _ORDINARY)
            parameters[name] = _nearest(value if special == _ORDINARY else None, knob)
            if _has_specials(knob):
                parameters[name + _SPECIAL] = special
        return parameters

    def configuration(self, parameters: Mapping[str, Any], over: Configuration) -> Configuration:
        """Return `over` with the values that Optuna parameters stand for."""
        return over.replaced({name: _value(knob, parameters) for name, knob in self.knobs.items()})

    def encode(self, configuration: Configuration) -> Floats:
        """Return the point of `configuration`, an array of shape (n_parameters,)."""
        parameters = self.parameters(configuration)
        return np.array([axis.encode(parameters[name]) for name, axis in self.axes.items()])

    def decode(self, point: ArrayLike, over: Configuration) -> Configuration:
        """Return `over` with the values that lie at a point of the unit cube."""
        units = np.asarray(point, dtype=np.float64)
        parameters = {name: axis.decode(unit) for (name, axis), unit in zip(self.axes.items(), units, strict=True)}
        return self.configuration(parameters, over)


def _has_specials(knob: Knob) -> bool:
    return bool(knob.special_values)


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
    """Return the parameter nearest to `value`; the lowest or first one where there is nothing to go by."""
    distribution = _distribution(knob)
    if isinstance(distribution, CategoricalDistribution):
        return value if value in distribution.choices else distribution.choices[0]
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        raise TypeError(f"a distribution of a kind that is not known: {distribution!r}")
    if value is None or isinstance(value, str):
        return distribution.low
    bounded = min(max(value, distribution.low), distribution.high)
    return round(bounded) if isinstance(distribution, IntDistribution) else float(bounded)


def _value(knob: Knob, parameters: Mapping[str, Any]) -> KnobValue:
    special = parameters.get(knob.name + _SPECIAL, _ORDINARY)
    if special != _ORDINARY:
        return next(value for value in knob.special_values if str(value) == special)
    return rounded(parameters[knob.name], knob.kind)
