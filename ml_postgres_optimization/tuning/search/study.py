"""The memory of the search: an Optuna study in the state folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.trials import Outcome, Trial
from ml_postgres_optimization.tuning.search.forest_sampler import ForestSampler
from ml_postgres_optimization.tuning.search.space import SearchSpace

_FILE = "study.journal"
_CONFIGURATION = "configuration"
_RANGES = "ranges"
# The guards abort at twice the baseline's mean. Beyond 4.5 times it is all the same, and would only blind the forest
# to the differences that matter.
_ABORTED_LOG_RATIO = math.log(2.0)
_WORST_LOG_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class Asked:
    """A configuration that the study wants to be tried.

    Parameters
    ----------
    configuration : Configuration
    reason : str
    trial : optuna.trial.Trial
        To be given back to `TuningStudy.tell` or `TuningStudy.refuse`.
    """

    configuration: Configuration
    reason: str
    trial: optuna.trial.Trial


class TuningStudy:
    """An Optuna study of configurations: minimise the log of the objective's ratio to that of the first baseline.

    Ratios of trials against different baselines are not comparable, so the value of a trial is the log of its own
    ratio plus that of all promotions before it. A study of an earlier run is taken up again if it knows the
    configuration that is in force now; else there would be no common zero, and a new one begins. Where the ranges of
    the knobs have changed meanwhile (they follow the free disk, for one), its trials are carried over into a new one,
    since Optuna's samplers learn only from trials of the same ranges.

    Parameters
    ----------
    study : optuna.study.Study
        Any tool of Optuna's may look at it.
    space : SearchSpace

    Notes
    -----
    Made by `open`.
    """

    def __init__(self, study: Study, space: SearchSpace) -> None:
        self.study = study
        self.space = space
        self._offset = 0.0
        self._enqueued: list[dict[str, Any]] = []
        _fail_what_earlier_runs_left(study)

    @classmethod
    def open(
        cls,
        folder: Path | None,
        *,
        workload: str,
        space: SearchSpace,
        initial: Configuration,
        sampler: BaseSampler,
    ) -> TuningStudy:
        """Take up the study of this workload that knows `initial`, or begin one.

        Parameters
        ----------
        folder : Path or None
            Of the server's state; None keeps the study in memory.
        workload : str
            Name of what the server is tuned for.

        Raises
        ------
        StateError
            If the folder cannot be used.
        """
        prefix = f"{workload}-{_digest(sorted(space.distributions))}-"
        name = f"{prefix}{_digest(_ranges(space))}-{initial.id}"
        try:
            storage = _storage(folder)
            known = [study for study in _studies(storage, prefix, sampler) if _value_of(study, initial) is not None]
            study = next((study for study in known if study.user_attrs[_RANGES] == _ranges(space)), None)
            if study is None:
                study = optuna.create_study(storage=storage, study_name=name, sampler=sampler)
                study.set_user_attr(_RANGES, _ranges(space))
        except OSError as error:
            raise StateError(
                f"the study in {folder} cannot be used: {error}", "Choose another GENESIS_HOME, or mend its rights."
            ) from error
        return cls(study, space)._begun(initial, known[-1] if known else None)

    def _begun(self, initial: Configuration, known: Study | None) -> TuningStudy:
        """Make sure that the study has a value for `initial`, and that values are counted from there."""
        if not self.study.trials:
            for trial in known.get_trials(states=(TrialState.COMPLETE,)) if known else ():
                over = self.space.configuration(trial.params, initial)
                self._add(over, trial.value or 0.0, trial.user_attrs)
        offset = _value_of(self.study, initial)
        if offset is None:
            self._add(initial, 0.0, {"origin": "initial", _CONFIGURATION: initial.id})
        self._offset = offset or 0.0
        return self

    def enqueue(self, configurations: Iterable[Configuration], *, reason: str) -> None:
        """Have these tried before what the sampler comes up with; those that are known already are left out."""
        # Optuna's skip_if_exists would leave out, too, what an earlier run had enqueued and never came to
        answered = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        known = [*(trial.params for trial in answered), *self._enqueued]
        for configuration in configurations:
            parameters = self.space.parameters(configuration)
            if parameters not in known:
                self.study.enqueue_trial(parameters, user_attrs={"reason": reason})
                self._enqueued.append(parameters)
                known.append(parameters)

    def ask(self, over: Configuration) -> Asked:
        """Return what to try next; knobs outside the search space are as in `over`."""
        trial = self.study.ask(fixed_distributions=self.space.distributions)
        configuration = self.space.configuration(trial.params, over)
        return Asked(configuration, str(trial.user_attrs.get("reason") or self._why_sampled(trial.number)), trial)

    def _why_sampled(self, number: int) -> str:
        sampler = self.study.sampler
        return sampler.reason_of(number) if isinstance(sampler, ForestSampler) else "the sampler came up with it"

    def tell(self, trial: Trial, accumulated_log_ratio: float, asked: Asked | None = None) -> None:
        """Remember a finished trial.

        Parameters
        ----------
        trial : Trial
        accumulated_log_ratio : float
            Log ratio of the trial's baseline to the configuration in force at the start.
        asked : Asked, optional
            Where the study itself had proposed it.
        """
        value = self._offset + accumulated_log_ratio + _log_ratio(trial)
        facts = _facts(trial)
        if asked is None:
            self._add(trial.proposal.configuration, value, facts)
            return
        for name, fact in facts.items():
            asked.trial.set_user_attr(name, fact)
        self.study.tell(asked.trial, value)

    def refuse(self, asked: Asked, reason: str) -> None:
        """Remember that a guard refused what was asked for: it is pruned, and has no value."""
        asked.trial.set_user_attr("refused", reason)
        self.study.tell(asked.trial, state=TrialState.PRUNED)

    def _add(self, configuration: Configuration, value: float, facts: Mapping[str, Any]) -> None:
        self.study.add_trial(
            create_trial(
                params=self.space.parameters(configuration),
                distributions=self.space.distributions,
                value=value,
                user_attrs=dict(facts),
            )
        )


def _storage(folder: Path | None) -> BaseStorage:
    if folder is None:
        return InMemoryStorage()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(folder / _FILE)))


def _fail_what_earlier_runs_left(study: Study) -> None:
    """Fail what was interrupted, and what was enqueued for reasons that need not hold any more."""
    # only one run works on a server at a time
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    for _ in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        # only what runs can fail, and what waits is asked for first
        study.tell(study.ask(), state=TrialState.FAIL)


def _studies(storage: BaseStorage, prefix: str, sampler: BaseSampler) -> list[Study]:
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith(prefix)]
    return [optuna.load_study(storage=storage, study_name=name, sampler=sampler) for name in names]


def _ranges(space: SearchSpace) -> dict[str, str]:
    return {name: distribution_to_json(distribution) for name, distribution in space.distributions.items()}


def _digest(described: object) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


def _value_of(study: Study, configuration: Configuration) -> float | None:
    """Return the latest value of `configuration` in the study; None where it has none."""
    values = [
        trial.value
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get(_CONFIGURATION) == configuration.id
    ]
    return values[-1] if values else None


def _log_ratio(trial: Trial) -> float:
    """Return the log of the estimated ratio; an aborted trial counts as bad, however its pairs had looked."""
    ratio = trial.verdict.ratio
    known = math.log(ratio) if math.isfinite(ratio) and ratio > 0 else _WORST_LOG_RATIO
    least = _ABORTED_LOG_RATIO if trial.verdict.outcome is Outcome.ABORTED else -math.inf
    return min(max(known, least), _WORST_LOG_RATIO)


def _facts(trial: Trial) -> dict[str, Any]:
    verdict = trial.verdict
    return {
        _CONFIGURATION: trial.proposal.configuration.id,
        "trial": trial.id,
        "origin": trial.proposal.origin,
        "outcome": str(verdict.outcome),
        "pairs": len(verdict.pairs),
        "ratio": verdict.ratio,
        "ratio_low": verdict.ratio_low,
    }
