"""Where proposals come from before the search has seen anything: the rules, and what a simulation has taught."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import default_rng

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.tuning.search import SearchSpace

_CANDIDATES = 2000
# Less than this the forest's word is not worth a trial's time.
_LEAST_GAIN = 0.02


@dataclass(frozen=True, slots=True)
class Draft:
    """What is worth a trial, made out when its turn comes, of what is in force then.

    Parameters
    ----------
    values : callable
        From the configuration in force to the values to put over it.
    origin : str
        As in `Proposal`.
    reason : str
        A sentence for the user.
    is_alternative : bool
        Whether it is passed over where the draft before it was promoted.
    """

    values: Callable[[Configuration], Mapping[str, KnobValue]]
    origin: str
    reason: str
    is_alternative: bool = False

    @classmethod
    def of(cls, values: Mapping[str, KnobValue], origin: str, reason: str) -> Draft:
        """Return a draft of values that are known already."""
        return cls(_fixed(values), origin, reason)


def _fixed(values: Mapping[str, KnobValue]) -> Callable[[Configuration], Mapping[str, KnobValue]]:
    return lambda _incumbent: values


def together(drafts: Sequence[Draft], symptoms: Sequence[Draft]) -> tuple[Draft, ...]:
    """Put the first draft and what symptoms ask for into one, before the drafts, which become its alternatives.

    Each has something that speaks for it, so the whole is worth one trial before each is worth one of its own. Where
    they want different changes of a knob, the first draft counts.
    """
    if not drafts or not symptoms:
        return tuple(drafts)
    first, *others = drafts

    def values(incumbent: Configuration) -> Mapping[str, KnobValue]:
        asked: dict[str, KnobValue] = {}
        for draft in (*reversed(symptoms), first):
            # a draft may also name what is to stay as it is
            asked |= {name: value for name, value in draft.values(incumbent).items() if value != incumbent.get(name)}
        return asked

    reason = f"{first.reason}, together with what symptoms ask for ({'; '.join(draft.reason for draft in symptoms)})"
    return Draft(values, first.origin, reason), replace(first, is_alternative=True), *others


def rule_drafts(
    advise: Callable[[Configuration], Configuration], initial: Configuration, *, apart: Collection[str] = ()
) -> tuple[Draft, ...]:
    """Split the rule-based configuration: our own concurrency first, then the settings of the server.

    Concurrency comes first as it is the strongest single knob (own measurement on two cores, mixed operations at
    4,500/s: a mean of 8.6 ms with 95 connections, 2.4 ms with 8), and its trial needs no reload. Where the rule's
    number is too small, as with slow commits, which share a flush only if they come together, its double and fourfold
    are tried.

    Parameters
    ----------
    advise : callable
        From the configuration in force to what the rules say; they give queries more memory the fewer there are.
    initial : Configuration
    apart : collection of str
        Settings that are tried by themselves, before all others together: those of our own sessions, where there are
        such, since they can be tried side by side.
    """
    in_force = initial.get(CONCURRENCY)
    advised = advise(initial).get(CONCURRENCY)
    drafts = []
    if isinstance(in_force, int) and isinstance(advised, int):
        for position, connections in enumerate(advised * factor for factor in (1, 2, 4)):
            if connections < in_force:
                reason = f"{connections} connections instead of {in_force} wait less for each other"
                drafts.append(Draft(_fixed({CONCURRENCY: connections}), "rules", reason, position > 0))

    def server(incumbent: Configuration) -> dict[str, KnobValue]:
        told = advise(incumbent)
        return {name: told[name] for name in told.difference(incumbent) if name in told and name != CONCURRENCY}

    def ours(incumbent: Configuration) -> Mapping[str, KnobValue]:
        return {name: value for name, value in server(incumbent).items() if name in apart}

    def others(incumbent: Configuration) -> Mapping[str, KnobValue]:
        return {name: value for name, value in server(incumbent).items() if name not in apart}

    sessions = [Draft(ours, "rules", "what the rules say of a session's settings")] if apart else []
    return (*drafts, *sessions, Draft(others, "rules", "what the rules say of this machine"))


def ranked_by_model(
    model: KnobForest,
    context: LoadContext,
    incumbent: Configuration,
    space: SearchSpace,
    *,
    allows: Callable[[Configuration], bool],
    seed: int,
    count: int = 3,
) -> list[Configuration]:
    """Return what a forest that learned from the simulation expects most of under this load; none if it is no good.

    Parameters
    ----------
    model : KnobForest
        Not asked unless it beats the naive forecast.
    context : LoadContext
        The load as it is now.
    incumbent : Configuration
    space : SearchSpace
    allows : callable
        Tells whether a configuration may be tried.
    seed : int
    count : int
        At most so many, each better than the incumbent by 2 % or more in the forest's view.
    """
    if not model.score.beats_naive:
        return []
    points = default_rng(seed).random((_CANDIDATES, len(space.axes)))
    # as keys, so that each comes once and the order is kept
    configurations = list(dict.fromkeys(space.decode(point, incumbent) for point in points))
    logs, _ = model.predict_many([incumbent, *configurations], context)
    promising = [
        configurations[position]
        for position in np.argsort(logs[1:], kind="stable")[: 20 * count]
        if logs[1 + position] < logs[0] + np.log1p(-_LEAST_GAIN)
    ]
    return [configuration for configuration in promising if allows(configuration)][:count]
