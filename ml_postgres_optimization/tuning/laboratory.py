"""A server under observation, on which one trial at a time is held."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change, Configuration, is_of_role
from ml_postgres_optimization.knobs.knob import Scope
from ml_postgres_optimization.knobs.rendering import same_value, written_text
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.guarded_change import GuardedChange
from ml_postgres_optimization.telemetry import Clock, Recorder, Window
from ml_postgres_optimization.trials import (
    NEVER,
    Blocks,
    BlocksInTurn,
    Concurrent,
    Deadline,
    Design,
    Load,
    MemoryWatch,
    OnPair,
    Outcome,
    Proposal,
    ReadMemory,
    Restarting,
    ServerArena,
    Settling,
    Switchback,
    Trial,
    TrialPlan,
    memory_unseen,
    run_trial,
)
from ml_postgres_optimization.tuning.search import ForestSampler, SearchSpace, TuningStudy, Where

_Layout = Callable[[ServerArena, TrialPlan, Change, Mapping[str, str], Settling], Blocks]
_LAYOUTS: Mapping[Design, _Layout] = {
    Design.SWITCHBACK: Switchback,
    Design.CONCURRENT: Concurrent,
    Design.RESTART: Restarting,
}


@dataclass(frozen=True, slots=True)
class Laboratory:
    """All that a trial on a live server needs.

    Parameters
    ----------
    guard : Guard
    recorder : Recorder
    clock : Clock
    rng : random.Random
        The coin that orders the blocks of a pair.
    load : Load or None
        None where the sessions are not ours.
    labels : mapping of str to str
        Put on every window; ``run`` and ``level`` for two.
    settling : Settling, optional
        What its trials have shown of how long the response takes to settle; each goes on from the one before.
    memory : callable
        Reads what memory the server's machine has left; None where that is not seen.
    """

    guard: Guard
    recorder: Recorder
    clock: Clock
    rng: random.Random
    load: Load | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    settling: Settling = field(default_factory=Settling)
    memory: ReadMemory = memory_unseen

    def watch(
        self,
        seconds: float,
        configuration: Configuration,
        *,
        anew: bool = True,
        labels: Mapping[str, str] | None = None,
        pool: Configuration | None = None,
    ) -> Window:
        """Observe what is in force, after telling our load how many connections that means.

        Parameters
        ----------
        seconds : float
        configuration : Configuration
            In force now.
        anew : bool
            Whether to begin a new window now, rather than where the last one ended.
        labels : mapping of str to str, optional
            On the window, beside our own.
        pool : Configuration, optional
            Whose number of connections our load has, where `configuration` only holds it below that for a while.
        """
        sessions = pool or configuration
        if anew and self.load and CONCURRENCY in sessions:
            self.load.set_connections(int(sessions[CONCURRENCY]))
        if anew:
            self.recorder.discard()
        labelled = {**self.labels, "phase": "watch", **(labels or {})}
        return self.recorder.record(seconds, configuration_id=configuration.id, labels=labelled)

    def in_force(self, expected: Configuration) -> Configuration:
        """Return `expected` with the server's values, where somebody else has changed them.

        Raises
        ------
        ServerUnreachable, TargetError
            If the server cannot be asked.
        """
        live = self.guard.actuator.settings([name for name in expected if name != CONCURRENCY])
        found = {
            name: setting.value
            for name, setting in live.items()
            if not same_value(expected[name], setting.value, setting.kind)
        }
        # of a role that is gone, or has what we cannot read, nothing of ours is in force
        there = {name: value for name, value in expected.items() if name in live or not is_of_role(name)}
        return Configuration({**there, **found})

    def new_trial_id(self) -> str:
        """Return the time as a name: it sorts by time, and is unique while one optimiser works on the server."""
        return f"{self.clock.now():%Y%m%dT%H%M%S.%f}"

    def allows(self, configuration: Configuration, incumbent: Configuration) -> bool:
        """Tell whether the guard would let `configuration` pass."""
        try:
            self.guard.review(configuration, before=incumbent)
        except ChangeRefused:
            return False
        return True

    def design_of(self, change: Change, *, may_divide: bool = True) -> Design:
        """Choose how `change` is tried: by restarts where one of its knobs needs them, side by side where our own
        sessions can SET all of it for themselves, and in turn otherwise.

        Raises
        ------
        ServerUnreachable, TargetError
            If the server cannot be asked.
        """
        catalogue = self.guard.catalogue
        knobs = change.knobs
        if any(name in catalogue and catalogue[name].scope is Scope.RESTART for name in knobs):
            return Design.RESTART
        if not may_divide or self.load is None or not all(name in catalogue.sessions_own for name in knobs):
            return Design.SWITCHBACK
        settings = {name: written_text(new) for name, (_, new) in knobs.items() if new is not None}
        return Design.CONCURRENT if self.load.can_divide(settings) else Design.SWITCHBACK

    def hold(
        self,
        baseline: Configuration,
        proposal: Proposal,
        plan: TrialPlan,
        *,
        design: Design | None = None,
        deadline: Deadline = NEVER,
        on_pair: OnPair | None = None,
    ) -> Trial:
        """Try `proposal` against `baseline`, which is in force; what is promoted is confirmed, else put back.

        Without a `design`, the change says which (`design_of`).

        Raises
        ------
        ChangeRefused
            If the guard or the server refuses it; nothing has changed then.
        TargetError, JournalError
            If the server or the journal fails; the guard has put the baseline back, or will at the next start.
        """
        change = Change(baseline, proposal.configuration)
        trial_id = self.new_trial_id()
        with self.guard.trial(change, trial_id) as guarded:
            trial = run_trial(
                self._blocks(guarded, trial_id, change, plan, design or self.design_of(change)),
                proposal,
                clock=self.clock,
                rng=self.rng,
                trial_id=trial_id,
                deadline=deadline,
                on_pair=on_pair,
            )
            if trial.verdict.outcome is Outcome.PROMOTED:
                guarded.confirm()
        return trial

    def _blocks(
        self, guarded: GuardedChange, trial_id: str, change: Change, plan: TrialPlan, design: Design
    ) -> Blocks:
        arena = self._arena(guarded, change, plan)
        return _LAYOUTS[design](arena, plan, change, {**self.labels, "trial": trial_id}, self.settling)

    def blocks_in_turn(self, guarded: GuardedChange, trial_id: str, change: Change, plan: TrialPlan) -> BlocksInTurn:
        """Lay out the blocks of a change that is guarded already, one after the other."""
        arena = self._arena(guarded, change, plan)
        is_restarted = self.design_of(change, may_divide=False) is Design.RESTART
        labels = {**self.labels, "trial": trial_id}
        return (Restarting if is_restarted else Switchback)(arena, plan, change, labels, self.settling)

    def _arena(self, guarded: GuardedChange, change: Change, plan: TrialPlan) -> ServerArena:
        memory = MemoryWatch(self.memory, self.clock, plan.guards)
        return ServerArena(change, guarded, self.recorder, clock=self.clock, memory=memory, load=self.load)


def open_study(
    laboratory: Laboratory,
    initial: Configuration,
    *,
    folder: Where,
    workload: str,
    seed: int,
    worker: str = "",
    elsewhere: Sequence[Where] = (),
    names: Collection[str] | None = None,
) -> TuningStudy:
    """Open the study of this server and workload, whose sampler proposes only what the guard lets pass.

    Parameters
    ----------
    laboratory : Laboratory
    initial : Configuration
        In force now; its knobs are the ones that are searched, as far as a trial can see what they do.
    folder : Path, str, optuna.storages.BaseStorage or None
        The folder of the server's state, or any storage of Optuna's or its URL; None keeps the study in memory.
    workload : str
        Name of what the server is tuned for.
    seed : int
    worker : str
        Name of this server among several that share a storage.
    elsewhere : sequence
        Folders or storages with studies of other servers, to learn from.
    names : collection of str, optional
        Search no others.

    Raises
    ------
    StateError
        If the folder or storage cannot be used, or a study in it is of a later version.
    """
    space = SearchSpace.of(laboratory.guard.catalogue, names=tuple(initial if names is None else names))
    sampler = ForestSampler(seed=seed, choice_weights=space.choice_weights, idle=space.idle)
    return TuningStudy.open(
        folder,
        workload=workload,
        space=space,
        initial=initial,
        sampler=sampler,
        worker=worker,
        elsewhere=elsewhere,
        allows=laboratory.allows,
    )
