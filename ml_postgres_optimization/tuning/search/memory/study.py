"""The memory of the search: an Optuna study in the state folder."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.trials import Trial
from ml_postgres_optimization.tuning.search.forest_sampler import ForestSampler
from ml_postgres_optimization.tuning.search.history import CONTEXT, EXPECTED_GAIN, VIOLATION, Context
from ml_postgres_optimization.tuning.search.memory.evidence import CONFIGURATION, facts_of, log_ratio, tells_something
from ml_postgres_optimization.tuning.search.memory.stored import (
    FORMAT,
    FORMAT_OF_OURS,
    RANGES,
    Where,
    open_storage,
    readable_studies,
    require_readable,
    storage_errors,
    studies_of,
    using_storage,
)
from ml_postgres_optimization.tuning.search.memory.transfer import best_of, lessons_of
from ml_postgres_optimization.tuning.search.space import SearchSpace

# Whether the first configuration may be tried while the second is in force.
Allows = Callable[[Configuration, Configuration], bool]

_WORKER = "worker"
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A configuration that the study wants to be tried.

    Parameters
    ----------
    configuration : Configuration
    reason : str
    trial : optuna.trial.Trial
        To be given back to `TuningStudy.tell` or `TuningStudy.refuse`.
    is_in_force : bool
        Whether it is what was in force when it was asked for, so that nothing speaks against it but that.
    """

    configuration: Configuration
    reason: str
    trial: optuna.trial.Trial
    is_in_force: bool = False


class TuningStudy:
    """An Optuna study of configurations: minimise the log of the objective's ratio to that of the first baseline.

    Ratios of trials against different baselines are not comparable, so the value of a trial is the log of its own
    ratio plus that of all promotions before it. A study of an earlier run is taken up again if it knows the
    configuration that is in force now; else there would be no common zero, and a new one begins. Where the ranges of
    the knobs have changed meanwhile (they follow the free disk, for one), its trials are carried over into a new one,
    since Optuna's samplers learn only from trials of the same ranges.

    Several processes, each with a server of its own, may share a study that lies in a storage of Optuna's. Each is a
    `worker` by name; what a worker left running is failed when it comes again, and what others try is left alone.

    Parameters
    ----------
    study : optuna.study.Study
        Any tool of Optuna's may look at it.
    space : SearchSpace
    worker : str
        Who tries: the same name after an interruption, and another one for each that works at the same time.
    elsewhere : sequence of Path, URL or storage
        Where else studies are kept that one may learn from.
    allows : callable, optional
        Tells whether the first configuration may be tried over the second, which is in force. The sampler passes over
        what may not; all may without it.

    Notes
    -----
    Made by `open`. A storage that is lost meanwhile raises `StateError`.
    """

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        *,
        where: Where = None,
        worker: str = "",
        elsewhere: Sequence[Where] = (),
        allows: Allows | None = None,
    ) -> None:
        self.study = study
        self.space = space
        self.where = where
        self.unreadable: tuple[str, ...] = ()
        self._worker = worker
        self._elsewhere = tuple(elsewhere)
        self._initial = self._over = Configuration({})
        self._context: Context = {}
        self._queue: deque[tuple[dict[str, Any], str]] = deque()
        self._enqueued: list[dict[str, Any]] = []
        if allows and isinstance(study.sampler, ForestSampler):
            study.sampler.restrict_to(
                lambda parameters: allows(space.configuration(parameters, self._over), self._over)
            )

    @classmethod
    def open(
        cls,
        where: Where,
        *,
        workload: str,
        space: SearchSpace,
        initial: Configuration,
        sampler: BaseSampler,
        worker: str = "",
        elsewhere: Sequence[Where] = (),
        allows: Allows | None = None,
    ) -> TuningStudy:
        """Take up the study of this workload that knows `initial`, or begin one.

        Parameters
        ----------
        where : Path, str, optuna.storages.BaseStorage or None
            A folder, such as that of the server's state; the URL of a database or a storage of Optuna's, which
            several processes may share; None keeps the study in memory.
        workload : str
            Name of what the server is tuned for.
        worker : str
            See the class.
        elsewhere : sequence
            More of them, whose studies are read by `transfer`.
        allows : callable, optional
            See the class.

        Raises
        ------
        StateError
            If the storage cannot be used, or a study in it is of a later version. Nothing was changed then.
        """
        with storage_errors(where):
            storage = open_storage(where)
            study, known = _found_or_made(storage, workload, space, initial, sampler)
            around = [storage, *elsewhere]
            opened = cls(study, space, where=where, worker=worker, elsewhere=around, allows=allows)
            return opened._begun(initial, known)

    def _begun(self, initial: Configuration, known: Study | None) -> TuningStudy:
        """Make sure that the study has a value for `initial`, and that values are counted from there."""
        self._fail_what_was_left()
        if not self.study.trials:
            for trial in known.get_trials(states=(TrialState.COMPLETE,)) if known else ():
                over = self.space.configuration(self.space.adapted(trial.params, initial), initial)
                self._add(over, trial.value or 0.0, trial.user_attrs)
        if _value_of(self.study, initial) is None:
            self._add(initial, 0.0, {"origin": "initial", CONFIGURATION: initial.id})
        self._initial = self._over = initial
        return self

    def _fail_what_was_left(self) -> None:
        """Fail what an earlier run of this worker was interrupted in; a worker runs once at a time."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get(_WORKER, "") == self._worker:
                self.study.tell(trial.number, state=TrialState.FAIL)

    @using_storage
    def transfer(self, context: Context) -> int:
        """Learn from what was tried under other loads and on other machines, as far as they are alike.

        The best configurations of similar studies are enqueued as long as this one has tried nothing.

        Parameters
        ----------
        context : mapping of str to float
            Of the trials to come (`context_of`).

        Returns
        -------
        int
            The number of trials of others that are taken into account.
        """
        self._context = dict(context)
        self.study.set_user_attr(CONTEXT, self._context)
        found, unreadable = readable_studies(self._elsewhere, self.study.sampler)
        self.unreadable = tuple(unreadable)
        others = [study for study in found if study.study_name != self.study.study_name]
        lessons = lessons_of(others, self.space, over=self._initial, context=context)
        if isinstance(self.study.sampler, ForestSampler):
            self.study.sampler.learn_from(lessons, context)
        if len(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) == 1:
            best = best_of(lessons, self.space, over=self._initial)
            self.enqueue(best, reason="it was among the best under a similar load")
        return sum(len(lesson.losses) for lesson in lessons)

    def focus(self, knobs: Collection[str]) -> None:
        """Search these knobs alone, from now on; all others stay as they are in force, but for what is enqueued."""
        if isinstance(self.study.sampler, ForestSampler):
            self.study.sampler.focus_on(self.space.parameters_of(knobs))

    @using_storage
    def expected_gain(self, over: Configuration) -> float | None:
        """Return the log ratio that the next trial is expected to gain; None where nobody can tell, or some wait."""
        self._stand_on(over)
        sampler = self.study.sampler
        if self._queue or not isinstance(sampler, ForestSampler):
            return None
        return sampler.expected_gain(self.study)

    @using_storage
    def enqueue(self, configurations: Iterable[Configuration], *, reason: str) -> None:
        """Have these tried before what the sampler comes up with; those that are known already are left out.

        They are kept by this object: a reason need not hold any more for the run that comes after an interruption.
        """
        answered = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        known = [*(self.space.canonical(trial.params) for trial in answered if trial.params), *self._enqueued]
        for configuration in configurations:
            parameters = self.space.parameters(configuration)
            if parameters not in known:
                self._queue.append((parameters, reason))
                self._enqueued.append(parameters)
                known.append(parameters)

    @using_storage
    def ask(self, over: Configuration) -> Asked:
        """Return what to try next over what is in force now; knobs outside the search space are as in `over`."""
        self._stand_on(over)
        trial = self._asked()
        trial.set_user_attr(_WORKER, self._worker)
        self._note_what_is_expected(trial)
        configuration = self.space.configuration(trial.params, over)
        reason = str(trial.user_attrs.get("reason") or self._why_sampled(trial.number))
        return Asked(configuration, reason, trial, is_in_force=configuration == over)

    def _stand_on(self, over: Configuration) -> None:
        self._over = over
        if isinstance(self.study.sampler, ForestSampler):
            self.study.sampler.centre_on(self.space.parameters(over))

    def _asked(self) -> optuna.trial.Trial:
        """Ask until it is nothing that another worker has come up with in the same moment."""
        trial, is_ours_alone = self._drawn()
        for _ in range(_ATTEMPTS):
            if is_ours_alone:
                break
            # should both have seen each other, both ask again, and draw other numbers
            self.study.tell(trial, state=TrialState.FAIL)
            trial, is_ours_alone = self._drawn()
        return trial

    def _drawn(self) -> tuple[optuna.trial.Trial, bool]:
        width = len(self.space.distributions)
        seen = {trial.number for trial in self.study.get_trials(deepcopy=False) if len(trial.params) == width}
        if self._queue:
            parameters, reason = self._queue.popleft()
            self.study.enqueue_trial(parameters, user_attrs={"reason": reason})
        trial = self.study.ask(fixed_distributions=self.space.distributions)
        new = [one for one in self.study.get_trials(deepcopy=False) if one.number not in {*seen, trial.number}]
        return trial, trial.params not in [one.params for one in new]

    def _note_what_is_expected(self, trial: optuna.trial.Trial) -> None:
        sampler = self.study.sampler
        gain = sampler.gain_of(trial.number) if isinstance(sampler, ForestSampler) else None
        if gain is not None:
            trial.set_user_attr(EXPECTED_GAIN, gain)

    def _why_sampled(self, number: int) -> str:
        sampler = self.study.sampler
        return sampler.reason_of(number) if isinstance(sampler, ForestSampler) else "the sampler came up with it"

    @using_storage
    def tell(self, trial: Trial, asked: Asked | None = None) -> None:
        """Remember a finished trial, if it tells anything.

        Parameters
        ----------
        trial : Trial
            Its baseline is known: what was in force at the start, or was told before.
        asked : Asked, optional
            Where the study itself had proposed it.
        """
        if not tells_something(trial):
            if asked:
                self.study.tell(asked.trial, state=TrialState.FAIL)
            return
        value = (_value_of(self.study, trial.baseline) or 0.0) + log_ratio(trial)
        facts = facts_of(trial) | {CONTEXT: self._context}
        if asked is None:
            self._add(trial.proposal.configuration, value, facts)
            return
        for name, fact in facts.items():
            asked.trial.set_user_attr(name, fact)
        self.study.tell(asked.trial, value)

    @using_storage
    def refuse(self, asked: Asked, reason: str) -> None:
        """Remember that a guard refused what was asked for: it is pruned, and has no value."""
        asked.trial.set_user_attr("refused", reason)
        asked.trial.set_user_attr(VIOLATION, 0.0 if asked.is_in_force else 1.0)
        self.study.tell(asked.trial, state=TrialState.PRUNED)

    @using_storage
    def give_back(self, asked: Asked) -> None:
        """Forget what was asked for: it was not tried, and nothing is known of it."""
        self.study.tell(asked.trial, state=TrialState.FAIL)

    def _add(self, configuration: Configuration, value: float, facts: Mapping[str, Any]) -> None:
        self.study.add_trial(
            create_trial(
                params=self.space.parameters(configuration),
                distributions=self.space.distributions,
                value=value,
                user_attrs=dict(facts),
            )
        )


def _found_or_made(
    storage: BaseStorage, workload: str, space: SearchSpace, initial: Configuration, sampler: BaseSampler
) -> tuple[Study, Study | None]:
    """Return the study to go on with, and one of other ranges whose trials it begins with."""
    prefix = f"{workload}-{_digest(sorted(space.distributions))}-"
    found = studies_of(storage, sampler, prefix=prefix)
    for study in found:
        require_readable(study)
    known = [study for study in found if _value_of(study, initial) is not None]
    same = next((study for study in known if study.user_attrs.get(RANGES) == _ranges(space)), None)
    if same is None:
        name = f"{prefix}{_digest(_ranges(space))}-{initial.id}"
        same = optuna.create_study(storage=storage, study_name=name, sampler=sampler, load_if_exists=True)
        same.set_user_attr(RANGES, _ranges(space))
        same.set_user_attr(FORMAT, FORMAT_OF_OURS)
    return same, known[-1] if known else None


def _ranges(space: SearchSpace) -> dict[str, str]:
    return {name: distribution_to_json(distribution) for name, distribution in space.distributions.items()}


def _digest(described: object) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


def _value_of(study: Study, configuration: Configuration) -> float | None:
    """Return the latest value of `configuration` in the study; None where it has none."""
    values = [
        trial.value
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get(CONFIGURATION) == configuration.id
    ]
    return values[-1] if values else None
