"""Watch, propose, review, try, promote or put back: one trial at a time, within a budget of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ml_postgres_optimization.errors import ChangeRefused, ForeignChange
from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import (
    NO_GUARDS,
    Deadline,
    Design,
    Interval,
    Outcome,
    Proposal,
    Trial,
    TrialPlan,
)
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.ledger import Budget, Ledger, said_of_proof
from ml_postgres_optimization.tuning.progress import (
    Progress,
    Stage,
    Subscriber,
    described,
    described_so_far,
    named,
    seen,
)
from ml_postgres_optimization.tuning.proposing.drafting import Draft, ranked_by_model
from ml_postgres_optimization.tuning.proposing.relevance import Observed, relevant
from ml_postgres_optimization.tuning.proposing.remedies import remedies
from ml_postgres_optimization.tuning.search import Asked, TuningStudy, context_of
from ml_postgres_optimization.tuning.timetable import PROOF_PAIRS, Timetable
from ml_postgres_optimization.tuning.waiting import Waiting

# Long enough that a query of some seconds ends in it; less where the whole is short.
_WATCHED_SECONDS, _WATCHED_SHARE = 10.0, 0.05


class Controller:
    """Optimise one server online.

    Parameters
    ----------
    laboratory : Laboratory
    study : TuningStudy
    plan : TrialPlan
        Of every trial.
    model : KnobForest, optional
        What a simulation has taught; asked only if it beats the naive forecast.
    subscribers : sequence of callables
        Each receives every `Progress`.

    Attributes
    ----------
    was_held : bool
        Whether the last campaign ended since the server's owner did not let it go on in its time.

    Notes
    -----
    Not thread safe. An exception, Ctrl-C included, leaves the incumbent in force: what was promoted before stays,
    and what was on trial is put back by the guard.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        study: TuningStudy,
        plan: TrialPlan,
        *,
        model: KnobForest | None = None,
        subscribers: Sequence[Subscriber] = (),
    ) -> None:
        self._laboratory = laboratory
        self._study = study
        self._plan = plan
        self._model = model
        self._subscribers = tuple(subscribers)
        self._begin(Budget(math.inf))

    def run(self, initial: Configuration, drafts: Sequence[Draft], budget: Budget) -> Ledger:
        """Optimise until nothing is worth a trial or the budget is over.

        Parameters
        ----------
        initial : Configuration
            In force now, the concurrency of our load included where there is one.
        drafts : sequence of Draft
            Tried first, in this order; then what symptoms ask for, and what the search proposes.
        budget : Budget

        Returns
        -------
        Ledger
            Its incumbent is in force.

        Raises
        ------
        TargetError, JournalError
            If the server or the journal fails; the incumbent is in force, or will be at the next start.
        """
        self._begin(budget, initial)
        ledger = Ledger(initial, initial)
        window = self._watch(initial)
        self._tell(Stage.WATCHED, seen(window), window=window)
        if not (window.operations_total or window.statements):
            self._tell(Stage.QUIET, "nothing runs on this server that could be compared")
            return ledger
        self._learn(window, initial)
        ledger = self._try_drafts(ledger, drafts)
        if budget.patience:
            ledger = self._treat(ledger, window)
        ledger = self._search(ledger, budget)
        return self._prove(ledger) if budget.prove and ledger.promoted and self._may_prove(ledger) else ledger

    def try_one(
        self, initial: Configuration, drafts: Sequence[Draft], budget: Budget, *, window: Window | None = None
    ) -> Ledger:
        """Hold one trial at once: of the first draft that can be tried, else of what the search proposes.

        Parameters
        ----------
        initial : Configuration
            In force now.
        drafts : sequence of Draft
        budget : Budget
            Nothing is proven at the end.
        window : Window, optional
            The load as it is now, for the model and the search; without it only the drafts count.

        Returns
        -------
        Ledger
            With the one trial; with none where nothing could be tried.

        Raises
        ------
        TargetError, JournalError
            As `run` does.
        """
        self._begin(replace(budget, prove=False), initial)
        ledger = Ledger(initial, initial)
        for draft in drafts:
            if not ledger.trials:
                ledger = self._try_draft(ledger, draft)
        if ledger.trials or window is None or not self._has_time(ledger):
            return ledger
        self._learn(window, initial)
        return self._ask_and_try(ledger)

    def _begin(self, budget: Budget, initial: Configuration | None = None) -> None:
        self._is_late = self._is_ended = self.was_held = False
        self._budget = budget
        self._most_trials = math.inf if budget.trials is None else budget.trials
        self._timetable = Timetable(self._laboratory, self._plan, budget)
        self._waiting = Waiting(self._laboratory, lambda message: self._tell(Stage.WAITING, message))
        if (consent := self._laboratory.guard.consent) and consent.approvals and initial is not None:
            consent.approvals.know(initial)

    def _learn(self, window: Window, initial: Configuration) -> None:
        """Let the search know the load, and what was learned under similar ones."""
        guard = self._laboratory.guard
        self._study.focus(relevant(Observed(window, guard.machine), guard.catalogue))
        self._study.transfer(context_of(LoadContext.of(window), guard.machine))
        for reason in self._study.unreadable:
            self._tell(Stage.UNREAD, f"nothing is learned from it: {reason}")
        self._ask_model(window, initial)

    def _ask_model(self, window: Window, initial: Configuration) -> None:
        """Let the search begin with what the model expects most of."""
        if self._model is None:
            return
        best = ranked_by_model(
            self._model,
            LoadContext.of(window),
            initial,
            self._study.space,
            allows=lambda configuration: self._laboratory.allows(configuration, initial),
            seed=self._laboratory.rng.randrange(2**32),
        )
        self._study.enqueue(best, reason="the forest that learned from the simulation expects most of it")

    def _try_drafts(self, ledger: Ledger, drafts: Sequence[Draft]) -> Ledger:
        was_promoted = False
        for draft in drafts:
            if draft.is_alternative and was_promoted:
                continue
            incumbent = ledger.incumbent
            ledger = self._try_draft(ledger, draft)
            was_promoted = ledger.incumbent != incumbent
        return ledger

    def _treat(self, ledger: Ledger, window: Window) -> Ledger:
        """Try what the symptoms ask for that are there under the incumbent; `window` was seen at the start."""
        if ledger.promoted:
            window = self._watch(ledger.incumbent)
        guard = self._laboratory.guard
        symptoms = remedies(Observed(window, guard.machine), ledger.incumbent, guard.catalogue)
        return self._try_drafts(ledger, tuple(symptoms))

    def _watch(self, configuration: Configuration) -> Window:
        """Look at the load for long enough to see what is rare."""
        wanted = min(_WATCHED_SECONDS, _WATCHED_SHARE * self._budget.seconds)
        return self._laboratory.watch(max(wanted, self._plan.block_seconds), configuration)

    def _try_draft(self, ledger: Ledger, draft: Draft) -> Ledger:
        incumbent = ledger.incumbent
        proposal = Proposal(incumbent.replaced(draft.values(incumbent)), draft.origin, draft.reason)
        change = Change(incumbent, proposal.configuration)
        may_try = change.knobs and len(ledger.trials) < self._most_trials and self._has_time(ledger, change)
        return self._try(ledger, proposal) if may_try else ledger

    def _search(self, ledger: Ledger, budget: Budget) -> Ledger:
        failures = 0
        while (
            self._is_worth_it(ledger.incumbent, failures, budget)
            and self._has_trials(ledger)
            and self._has_time(ledger)
        ):
            after = self._ask_and_try(ledger)
            failures = failures + 1 if after.incumbent == ledger.incumbent else 0
            ledger = after
        return ledger

    def _is_worth_it(self, incumbent: Configuration, failures: int, budget: Budget) -> bool:
        """Tell whether another trial may still bring something."""
        if failures >= budget.patience:
            message = f"the last {budget.patience} proposals brought nothing; no other seems worth a trial"
            self._tell(Stage.QUIET, message)
            return False
        gain = self._study.expected_gain(incumbent)
        if gain is None or gain >= budget.least_gain:
            return True
        self._tell(Stage.QUIET, f"the next trial is expected to gain {gain:.2%}, less than what is worth one")
        return False

    def _has_trials(self, ledger: Ledger) -> bool:
        """Tell whether the budget has another trial."""
        if len(ledger.trials) < self._most_trials:
            return True
        self._tell(Stage.QUIET, f"the budget of {self._most_trials:.0f} trials is used up")
        return False

    def _ask_and_try(self, ledger: Ledger) -> Ledger:
        asked = self._study.ask(ledger.incumbent)
        return self._try(ledger, Proposal(asked.configuration, "forest", asked.reason), asked)

    def _has_time(self, ledger: Ledger, change: Change | None = None) -> bool:
        """Tell whether a trial of `change`, or of any where none is given, can still be decided in time."""
        if self._is_ended:
            return False
        needed_seconds = self._timetable.least_seconds(change)
        left_seconds = self._timetable.left_for_trials_seconds(ledger)
        if left_seconds >= needed_seconds:
            return True
        if not self._is_late:
            self._is_late = True
            message = f"{left_seconds:.0f} s are left for trials, and one takes {needed_seconds:.0f} s at least"
            self._tell(Stage.QUIET, message)
        return False

    def _may_prove(self, ledger: Ledger) -> bool:
        """Tell whether a proof can still show something; the trial of what was promoted stands for itself."""
        if self._is_ended:
            return False
        if self._timetable.left_seconds >= self._timetable.least_proof_seconds(ledger):
            return True
        self._tell(Stage.QUIET, "no time is left to prove it afresh: the trial itself is the evidence")
        return False

    def _try(self, ledger: Ledger, proposal: Proposal, asked: Asked | None = None) -> Ledger:
        """Hold the trial of `proposal`, unless there is nothing to try or a guard refuses it; remember the result."""
        change = Change(ledger.incumbent, proposal.configuration)
        self._tell(Stage.PROPOSED, f"{proposal.reason}: {named(change.knobs)}", proposal=proposal)
        try:
            self._review(change)
            trial = self._waiting.hold(
                lambda: self._hold(proposal, self._plan, change, self._timetable.deadline_of(ledger, change)),
                change,
                proposal.reason,
                needed_seconds=self._timetable.least_seconds(change),
                left_seconds=lambda: self._timetable.left_for_trials_seconds(ledger),
            )
        except ForeignChange as foreign:
            self._stop_for(foreign, proposal, asked)
            return ledger
        except ChangeRefused as refusal:
            self._tell(Stage.REFUSED, refusal.what, proposal=proposal)
            if asked:
                self._study.refuse(asked, refusal.what)
            return ledger
        if trial is None:
            self._end_for_the_owner()
            self._give_back(asked)
            return ledger
        # first what must not be lost, should the study be
        self._tell(Stage.DECIDED, described(trial), proposal=proposal, trial=trial)
        self._close(trial)
        self._study.tell(trial, asked)
        return ledger.after(trial)

    def _stop_for(self, foreign: ForeignChange, proposal: Proposal, asked: Asked | None) -> None:
        """End it: what all trials would stand on is no longer in force, and nothing speaks against the proposal."""
        self._is_ended = True
        self._tell(Stage.OVERTAKEN, foreign.what, proposal=proposal)
        self._give_back(asked)

    def _end_for_the_owner(self) -> None:
        self._is_ended = self.was_held = True
        self._tell(Stage.QUIET, "the time is over before a trial may begin")

    def _give_back(self, asked: Asked | None) -> None:
        if asked:
            self._study.give_back(asked)

    def _review(self, change: Change) -> None:
        """Ask nobody for what the guard would refuse anyway.

        Raises
        ------
        ChangeRefused
        """
        if not change.knobs:
            raise ChangeRefused("It is in force already.", "Nothing needs to be done.")
        self._laboratory.guard.review(change.after, before=change.before)

    def _close(self, trial: Trial) -> None:
        """Ask no more for what was tried, whatever came of it."""
        consent = self._laboratory.guard.consent
        if consent and consent.approvals and trial.verdict.outcome is not Outcome.UNDECIDED:
            consent.approvals.close(trial.proposal.configuration.id)

    def _prove(self, ledger: Ledger) -> Ledger:
        """Try the initial configuration once more: its ratio, inverted, is what all promotions brought."""
        proposal = Proposal(ledger.initial, "proof", "the initial configuration against the one that was found")
        # the initial configuration needs no guards: it is what the server was run on
        thresholds = replace(self._plan.thresholds, min_pairs=PROOF_PAIRS, futility_alpha=None)
        plan = replace(self._plan, guards=NO_GUARDS, thresholds=thresholds)
        self._tell(Stage.PROVING, proposal.reason, proposal=proposal)
        try:
            # by what is written into the server's configuration, and everybody under the same: as it will stay
            change = Change(ledger.incumbent, ledger.initial)
            design = self._laboratory.design_of(change, may_divide=False)
            trial = self._waiting.hold(
                lambda: self._hold(proposal, plan, change, self._timetable.proof_deadline, design=design),
                change,
                proposal.reason,
                needed_seconds=self._timetable.least_proof_seconds(ledger),
                left_seconds=lambda: self._timetable.left_seconds,
            )
            if trial is None:
                self._end_for_the_owner()
                return ledger
            proved = ledger.proved_by(trial)
        except ChangeRefused as refusal:
            self._tell(Stage.REFUSED, refusal.what, proposal=proposal)
            return ledger
        message = said_of_proof(proved)
        self._tell(Stage.PROVEN, message, proposal=proposal, trial=proved.proof, interval=proved.proven)
        return proved

    def _hold(
        self,
        proposal: Proposal,
        plan: TrialPlan,
        change: Change,
        deadline: Deadline,
        *,
        design: Design | None = None,
    ) -> Trial:
        def compared(pairs: int, interval: Interval) -> None:
            self._tell(Stage.COMPARED, described_so_far(pairs, interval), proposal=proposal, interval=interval)

        return self._laboratory.hold(
            change.before, proposal, plan, design=design, deadline=deadline, on_pair=compared
        )

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
        now, remaining_seconds = self._laboratory.clock.now(), self._timetable.left_seconds
        progress = Progress(stage, now, message, remaining_seconds, proposal, interval, trial, window)
        for subscriber in self._subscribers:
            subscriber(progress)
