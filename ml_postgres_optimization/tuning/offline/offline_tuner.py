"""Search a configuration for a load that runs for the tuning alone, and prove what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from ml_postgres_optimization.errors import ChangeRefused, ForeignChange
from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.telemetry import Window, merge
from ml_postgres_optimization.trials import (
    Deadline,
    Design,
    Interval,
    Measure,
    OnPair,
    Proposal,
    Trial,
    TrialPlan,
    paired_objective,
)
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.ledger import Budget
from ml_postgres_optimization.tuning.offline.ladder import Ladder
from ml_postgres_optimization.tuning.offline.screening import Noise, Screening
from ml_postgres_optimization.tuning.offline.tuned import Tuned
from ml_postgres_optimization.tuning.progress import Progress, Stage, Subscriber, described, described_so_far, seen
from ml_postgres_optimization.tuning.proposing.drafting import Draft, together
from ml_postgres_optimization.tuning.proposing.relevance import Observed, relevant
from ml_postgres_optimization.tuning.proposing.remedies import remedies
from ml_postgres_optimization.tuning.search import Asked, TuningStudy, context_of

# Of the time: what is kept for the proof, where it can do with less, and what it may take at most.
_PROOF_SHARE, _LARGEST_PROOF_SHARE = 1 / 3, 1 / 2
# Blocks of the configuration at the start, by which the noise is known before the first candidate.
_FIRST_BLOCKS = 3
# What is thought of a candidate before it is tried. The rules are the experience of many servers, and see what blocks
# of seconds do not (checkpoints, growth): they are gone on with unless they seem worse. What the search comes up with
# is as likely worse as better, and what a symptom asks for lies between. Own judgement.
_RULES = Screening(math.log(0.9), 0.3, min_blocks=2, likely=0.5)
_REMEDIES = Screening(math.log(0.95), 0.2)
_SEARCH = Screening(0.0, 0.15, max_blocks=3, hopeless=0.35, likely=0.7)


class OfflineTuner:
    """Tune a server that nobody relies on meanwhile.

    Candidates are screened against the incumbent, a block or a few each, and the better one is gone on with, unproven
    (`Screening`). In the last third of the time what was found is tried against what was in force at the start, by
    the always-valid test; only that can leave it in force.

    Parameters
    ----------
    laboratory : Laboratory
    study : TuningStudy
    plan : TrialPlan
        Of every trial; the screenings have a rule of their own.
    subscribers : sequence of callables
        Each receives every `Progress`.

    Notes
    -----
    Not thread safe. An exception, Ctrl-C included, puts back what was in force at the start.
    """

    def __init__(
        self, laboratory: Laboratory, study: TuningStudy, plan: TrialPlan, *, subscribers: Sequence[Subscriber] = ()
    ) -> None:
        self._laboratory = laboratory
        self._study = study
        self._plan = plan
        self._subscribers = tuple(subscribers)
        self._trials: list[Trial] = []
        self._initial = Configuration({})
        self._budget = Budget(math.inf)
        self._end_seconds = math.inf
        self._is_told_of_restarts = False

    def run(self, initial: Configuration, drafts: Sequence[Draft], budget: Budget) -> Tuned:
        """Search and prove until the budget is over.

        Parameters
        ----------
        initial : Configuration
            In force now.
        drafts : sequence of Draft
            Screened first, in this order; then what symptoms ask for, and what the search proposes.
        budget : Budget

        Returns
        -------
        Tuned

        Raises
        ------
        TargetError, JournalError
            If the server or the journal fails; the initial configuration is in force, or will be at the next start.
        """
        self._begin(initial, budget)
        windows = [self._laboratory.watch(self._plan.block_seconds, initial) for _ in range(_FIRST_BLOCKS)]
        whole, noise = reduce(merge, windows), noise_of(windows, self._plan.measure)
        self._tell(Stage.WATCHED, f"{seen(whole)}; blocks differ by {noise.deviation:.0%}", window=whole)
        if not whole.operations_total:
            self._tell(Stage.QUIET, f"not one operation ended in {whole.duration_seconds:.0f} s")
            return Tuned(initial, initial)
        self._learn(whole)
        with Ladder(self._laboratory, initial, windows, noise) as ladder:
            symptoms = self._remedies(initial, whole) if budget.patience else ()
            self._try_drafts(ladder, together(drafts, symptoms), _RULES)
            if budget.patience:
                self._try_drafts(ladder, self._remedies(ladder.incumbent, ladder.latest_window), _REMEDIES)
            self._search(ladder, budget)
            best = ladder.incumbent
        proof = self._prove(initial, best) if budget.prove and best != initial else None
        return Tuned(initial, best, tuple(self._trials), proof)

    def _begin(self, initial: Configuration, budget: Budget) -> None:
        self._trials = []
        self._initial, self._budget, self._is_told_of_restarts = initial, budget, False
        self._end_seconds = self._laboratory.clock.monotonic_seconds() + budget.seconds

    def _learn(self, window: Window) -> None:
        """Let the search know the load, and what was learned under similar ones."""
        guard = self._laboratory.guard
        self._study.focus(relevant(Observed(window, guard.machine), guard.catalogue))
        self._study.transfer(context_of(LoadContext.of(window), guard.machine))
        for reason in self._study.unreadable:
            self._tell(Stage.UNREAD, f"nothing is learned from it: {reason}")

    def _remedies(self, seen_under: Configuration, window: Window) -> tuple[Draft, ...]:
        guard = self._laboratory.guard
        return tuple(remedies(Observed(window, guard.machine), seen_under, guard.catalogue))

    def _try_drafts(self, ladder: Ladder, drafts: Sequence[Draft], screening: Screening) -> None:
        was_preferred, tried = False, {ladder.incumbent}
        for draft in drafts:
            if draft.is_alternative and was_preferred:
                continue
            before = ladder.incumbent
            proposal = Proposal(before.replaced(draft.values(before)), draft.origin, draft.reason)
            change = Change(before, proposal.configuration)
            may_try = proposal.configuration not in tried and self._has_trials() and self._has_time(change)
            if may_try and self._could_prove(proposal):
                tried.add(proposal.configuration)
                self._screen(ladder, proposal, screening)
            was_preferred = ladder.incumbent != before

    def _search(self, ladder: Ladder, budget: Budget) -> None:
        failures = 0
        while self._is_worth_it(ladder.incumbent, failures, budget) and self._has_time(_nothing_yet(ladder)):
            before = ladder.incumbent
            asked = self._study.ask(before)
            self._screen(ladder, Proposal(asked.configuration, "forest", asked.reason), _SEARCH, asked)
            failures = 0 if ladder.incumbent != before else failures + 1

    def _is_worth_it(self, incumbent: Configuration, failures: int, budget: Budget) -> bool:
        """Tell whether another screening may still bring something, and say why not."""
        if not self._has_trials():
            self._tell(Stage.QUIET, f"the budget of {budget.trials} trials is used up")
        elif failures >= budget.patience:
            self._tell(Stage.QUIET, f"the last {failures} proposals brought nothing; no other seems worth a trial")
        elif (gain := self._study.expected_gain(incumbent)) is not None and gain < budget.least_gain:
            self._tell(Stage.QUIET, f"the next trial is expected to gain {gain:.2%}, less than what is worth one")
        else:
            return True
        return False

    def _screen(self, ladder: Ladder, proposal: Proposal, screening: Screening, asked: Asked | None = None) -> None:
        """Screen `proposal`, unless there is nothing to try or a guard refuses it; remember the result."""
        change = Change(ladder.incumbent, proposal.configuration)
        self._tell(Stage.PROPOSED, f"{proposal.reason}: {', '.join(change.knobs)}", proposal=proposal)
        try:
            if not change.knobs:
                raise ChangeRefused("It is in force already.", "Nothing needs to be done.")
            trial = ladder.screen(
                proposal,
                self._plan,
                screening,
                on_block=self._listener(proposal),
                has_time=lambda: self._has_time(change),
            )
        except ForeignChange:
            if asked:
                self._study.give_back(asked)
            raise
        except ChangeRefused as refusal:
            self._tell(Stage.REFUSED, refusal.what, proposal=proposal)
            if asked:
                self._study.refuse(asked, refusal.what)
            return
        self._trials.append(trial)
        self._tell(Stage.DECIDED, described(trial), proposal=proposal, trial=trial)
        self._study.tell(trial, asked)

    def _prove(self, initial: Configuration, best: Configuration) -> Trial | None:
        """Try what was found against what was in force at the start, as if nothing were known of it."""
        proposal = Proposal(best, "search", "what the search came to, against what was in force at the start")
        thresholds = replace(self._plan.thresholds, futility_alpha=None)
        plan = replace(self._plan, thresholds=thresholds)
        self._tell(Stage.PROVING, proposal.reason, proposal=proposal)
        try:
            design = self._design_of(Change(initial, best))
            deadline, on_pair = Deadline(self._end_seconds), self._listener(proposal)
            trial = self._laboratory.hold(initial, proposal, plan, design=design, deadline=deadline, on_pair=on_pair)
        except ForeignChange:
            raise
        except ChangeRefused as refusal:
            self._tell(Stage.REFUSED, refusal.what, proposal=proposal)
            return None
        self._tell(Stage.PROVEN, described(trial), proposal=proposal, trial=trial)
        return trial

    def _has_time(self, change: Change) -> bool:
        """Tell whether a pair of `change` still fits into the search's time."""
        left_seconds = (
            self._end_seconds - self._proof_seconds(change.after) - self._laboratory.clock.monotonic_seconds()
        )
        return left_seconds >= self._seconds_for(1, change)

    def _has_trials(self) -> bool:
        return self._budget.trials is None or len(self._trials) < self._budget.trials

    def _could_prove(self, proposal: Proposal) -> bool:
        """Tell whether what needs a restart could be proven in time; where it could not, say so once."""
        needed_seconds = self._least_proof_seconds(proposal.configuration)
        is_restarted = self._design_of(Change(self._initial, proposal.configuration)) is Design.RESTART
        if not is_restarted or needed_seconds <= self._budget.seconds * _LARGEST_PROOF_SHARE:
            return True
        if not self._is_told_of_restarts:
            self._is_told_of_restarts = True
            message = (
                f"to prove a change that needs a restart takes {needed_seconds:,.0f} s at least, more than half of "
                f"the {self._budget.seconds:,.0f} s: none is tried below {2 * needed_seconds:,.0f} s"
            )
            self._tell(Stage.REFUSED, message, proposal=proposal)
        return False

    def _proof_seconds(self, found: Configuration) -> float:
        """Return what is kept to prove that `found` is better than what was in force at the start."""
        seconds = self._budget.seconds
        if not self._budget.prove:
            return 0.0
        wanted = max(seconds * _PROOF_SHARE, self._least_proof_seconds(found))
        return min(wanted, seconds * _LARGEST_PROOF_SHARE)

    def _least_proof_seconds(self, found: Configuration) -> float:
        if not self._budget.prove:
            return 0.0
        return self._seconds_for(self._plan.thresholds.min_pairs, Change(self._initial, found))

    def _seconds_for(self, pairs: int, change: Change) -> float:
        plan = self._laboratory.settling.applied_to(self._plan)
        return plan.seconds_for(pairs, change, self._design_of(change))

    def _design_of(self, change: Change) -> Design:
        # by what is written into the server's configuration, as it will stay
        return self._laboratory.design_of(change, may_divide=False)

    def _listener(self, proposal: Proposal) -> OnPair:
        def compared(pairs: int, interval: Interval) -> None:
            self._tell(Stage.COMPARED, described_so_far(pairs, interval), proposal=proposal, interval=interval)

        return compared

    def _tell(
        self,
        stage: Stage,
        message: str,
        *,
        proposal: Proposal | None = None,
        interval: Interval | None = None,
        trial: Trial | None = None,
        window: Window | None = None,
    ) -> None:
        clock = self._laboratory.clock
        remaining_seconds = max(0.0, self._end_seconds - clock.monotonic_seconds())
        progress = Progress(stage, clock.now(), message, remaining_seconds, proposal, interval, trial, window)
        for subscriber in self._subscribers:
            subscriber(progress)


def _nothing_yet(ladder: Ladder) -> Change:
    """Return the change of a proposal that is not known yet, none of which needs a restart."""
    return Change(ladder.incumbent, ladder.incumbent)


def noise_of(windows: Sequence[Window], measure: Measure) -> Noise:
    """Return how much blocks of one configuration differ, those of a usual machine at first."""
    last = windows[-1]
    pairs = [paired_objective(last, one, reference=last, measure=measure) for one in windows]
    return Noise().after([math.log(this / first) for first, this in pairs if this > 0 and first > 0])
