"""What was learned under one load, on one machine, in the service of another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from optuna.study import Study
from optuna.trial import TrialState

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.tuning.search.history import CONTEXT, VIOLATION, Context, Lesson
from ml_postgres_optimization.tuning.search.space import SearchSpace

_RATE = "load.log2_per_second"
_SHARE = "load.share."
_MACHINE = "machine."
_GROUPS = ("load.", _MACHINE)

# How far two features may lie apart to be still alike (the likeness falls to 0.61 at one of these): a factor of 2.8
# in the rate or the machine, a third of the operations being others, another kind of disk.
_LOG2_SCALE = 1.5
_SHARE_SCALE = 0.3
_ROTATIONAL = "machine.rotational"
_ROTATIONAL_SCALE = 0.7
# What is not known of a load or a machine may be anything.
_LIKENESS_OF_THE_UNKNOWN = 0.7
_LEAST_LIKENESS = 0.05
# Below this likeness a study's best is no better a start than a design that knows nothing.
_LIKENESS_TO_START_FROM = 0.5
# What is not even expected to bring so much is not worth a trial at the start.
_LEAST_GAIN = 0.02


def context_of(load: LoadContext | None = None, machine: Machine | None = None) -> dict[str, float]:
    """Return what a load and a machine are like, whatever the configuration: finite numbers by feature name.

    Examples
    --------
    >>> context_of(LoadContext(64.0, {"read": 0.75, "write": 0.25}))
    {'load.log2_per_second': 6.0, 'load.share.read': 0.75, 'load.share.write': 0.25}
    """
    features: dict[str, float | None] = {}
    if load is not None:
        offered = load.offered_per_second
        features[_RATE] = math.log2(offered) if offered > 0 else None
        features |= {f"{_SHARE}{kind}": share for kind, share in sorted(load.mix.items())}
    if machine is not None:
        features["machine.log2_cpus"] = math.log2(machine.cpus) if machine.cpus > 0 else None
        features["machine.log2_memory_bytes"] = math.log2(max(1, machine.memory_limit_bytes))
        features[_ROTATIONAL] = None if machine.rotational_disk is None else float(machine.rotational_disk)
    return {name: float(value) for name, value in features.items() if value is not None and math.isfinite(value)}


def likeness(one: Context, other: Context) -> float:
    """Return how alike two contexts are, from 0 to 1.

    Examples
    --------
    >>> reads, writes = ({f"load.share.{kind}": 1.0} for kind in ("read", "write"))
    >>> likeness(reads, reads) > 0.6, likeness(reads, writes) < 0.01
    (True, True)
    """
    distance, unknown = 0.0, 0
    for group in _GROUPS:
        names = [name for name in sorted({*one, *other}) if name.startswith(group)]
        # a kind of operation that a known mix does not have has a share of 0
        told = [name for name in names if name.startswith(_SHARE) and _has_mix(one) and _has_mix(other)]
        told += [name for name in names if name in one and name in other and name not in told]
        distance += sum(((one.get(name, 0.0) - other.get(name, 0.0)) / _scale(name)) ** 2 for name in told)
        unknown += not told
    return math.exp(-distance / 2) * _LIKENESS_OF_THE_UNKNOWN**unknown


def _has_mix(context: Context) -> bool:
    return any(name.startswith(_SHARE) for name in context)


def _scale(name: str) -> float:
    if name.startswith(_SHARE):
        return _SHARE_SCALE
    return _ROTATIONAL_SCALE if name == _ROTATIONAL else _LOG2_SCALE


def lessons_of(
    studies: Iterable[Study], space: SearchSpace, *, over: Configuration, context: Context
) -> list[Lesson]:
    """Return what studies of other loads and machines have to say here, those of the most similar ones first.

    Knobs that this space lacks are passed over; those that a study lacks are taken to have been as in `over`.
    """
    likely = [(likeness(study.user_attrs.get(CONTEXT, {}), context), study) for study in studies]
    lessons = [_lesson(study, space, over, alike) for alike, study in likely if alike >= _LEAST_LIKENESS]
    return sorted((lesson for lesson in lessons if lesson.parameters), key=lambda lesson: -lesson.likeness)


def _lesson(study: Study, space: SearchSpace, over: Configuration, alike: float) -> Lesson:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    told = [trial for trial in finished if trial.value is not None and math.isfinite(trial.value)]
    return Lesson(
        parameters=tuple(space.adapted(trial.params, over) for trial in told),
        losses=tuple(trial.value or 0.0 for trial in told),
        context=study.user_attrs.get(CONTEXT, {}),
        likeness=alike,
        violations=tuple(float(trial.user_attrs.get(VIOLATION, 0.0)) for trial in told),
    )


def best_of(
    lessons: Sequence[Lesson], space: SearchSpace, *, over: Configuration, count: int = 3
) -> list[Configuration]:
    """Return the configurations that were best under similar loads, the best of each in turn."""
    found: dict[Configuration, None] = {}
    alike = [lesson for lesson in lessons if lesson.likeness >= _LIKENESS_TO_START_FROM]
    ranked = [sorted(range(len(lesson.losses)), key=lesson.losses.__getitem__)[:count] for lesson in alike]
    for place in range(count):
        for lesson, order in zip(alike, ranked, strict=True):
            if place < len(order) and lesson.losses[order[place]] < -_LEAST_GAIN:
                found[space.configuration(lesson.parameters[order[place]], over)] = None
    return list(found)[:count]
