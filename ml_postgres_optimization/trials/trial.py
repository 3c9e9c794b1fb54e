"""Run a trial: blocks in turn, evidence as it comes, and the baseline back in force unless the candidate has won."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.telemetry import Clock, Window, merge
from ml_postgres_optimization.trials.figures import figures_of
from ml_postgres_optimization.trials.layout.blocks import Blocks
from ml_postgres_optimization.trials.layout.design import NEVER, Deadline
from ml_postgres_optimization.trials.layout.look import Looks, RunPair
from ml_postgres_optimization.trials.layout.memory_watch import MemoryRunsOut
from ml_postgres_optimization.trials.objective import Measure, paired_objective
from ml_postgres_optimization.trials.parts import Parts
from ml_postgres_optimization.trials.proposal import (
    Arm,
    Design,
    Interval,
    Outcome,
    Pair,
    PartEffect,
    Proposal,
    Trial,
    Verdict,
)
from ml_postgres_optimization.trials.sequential import PairedTest
from ml_postgres_optimization.trials.verdict import Breach, Decision, Health, breach, decide

OnPair = Callable[[int, Interval], None]
_RESPONSE_MEASURES = (Measure.MEAN, Measure.P95, Measure.P99)


def run_trial(
    blocks: Blocks,
    proposal: Proposal,
    *,
    clock: Clock,
    rng: random.Random,
    trial_id: str,
    deadline: Deadline = NEVER,
    on_pair: OnPair | None = None,
) -> Trial:
    """Try `proposal` against what is in force, and stop as soon as the evidence decides.

    A reference block on the baseline comes first: it gives the mix by which every block is weighted, and what the
    guards compare with; where nothing finished in it, the next baseline block takes its place. Then pairs of blocks
    follow, the arms of each exchanged by a coin. Where a block of a candidate breaches a guard, a baseline block
    follows unless it ran beside it or comes next anyway; unless that is as bad, the trial is aborted, at the second
    time only where something else may be to blame (`Breach.may_be_a_stall`). Pairs of blocks that began before
    the response had settled are left out, and judged by the guards as far as it had (`Looks`). Where memory runs out,
    the trial ends within the block (`MemoryRunsOut`): aborted, or undecided where no candidate had been in force yet.

    Parameters
    ----------
    blocks : Blocks
        Of the change to what is proposed; its baseline is in force now.
    proposal : Proposal
    clock : Clock
    rng : random.Random
        The coin.
    trial_id : str
        Sorts by time; unique for the server.
    deadline : Deadline, optional
    on_pair : callable, optional
        Receives the number of pairs and the interval after each pair.

    Returns
    -------
    Trial
        `Verdict.outcome` is undecided where the budget ended before the evidence sufficed.

    Notes
    -----
    Whatever happens, an exception and Ctrl-C included, the baseline is left in force, unless the candidate was
    promoted: then the candidate is, for the caller to confirm. A halt that the server's owner calls (`NotNow`) is
    such an exception: what a trial had seen until then is no evidence of anything.
    """
    started_at = clock.now()
    kept = blocks.change.before
    course = _Course(blocks, clock, rng, deadline, on_pair or _nobody)
    try:
        verdict = course.verdict()
        if verdict.outcome is Outcome.PROMOTED:
            kept = blocks.change.after
    finally:
        blocks.leave(kept)
    return Trial(
        trial_id,
        blocks.change.before,
        proposal,
        verdict,
        started_at,
        clock.now(),
        course.figures,
        course.effects,
        blocks.design,
        course.slower,
    )


def _nobody(_pairs: int, _interval: Interval) -> None:
    """Stand in for a listener."""


class _Course:
    """One trial's way from the reference block to the verdict."""

    def __init__(self, blocks: Blocks, clock: Clock, rng: random.Random, deadline: Deadline, on_pair: OnPair) -> None:
        self._blocks = blocks
        self._clock = clock
        self._plan = blocks.plan
        self._rng = rng
        self._deadline = deadline
        self._began_seconds = clock.monotonic_seconds()
        self._on_pair = on_pair
        measures = sorted({self._plan.measure, *_RESPONSE_MEASURES})
        self._tests = {measure: PairedTest(alpha=self._plan.alpha) for measure in measures}
        self._parts = Parts(limit_ratio=self._plan.guards.part_ratio, alpha=self._plan.alpha)
        self._pairs: list[Pair] = []
        self._looks = Looks(blocks)
        self._has_stalled = False
        self.in_all: dict[Arm, Window] = {}

    @property
    def figures(self) -> dict[str, float]:
        """Both arms over all blocks that count, and what was discarded before each."""
        return figures_of(self.in_all, self._blocks.design) | self._looks.figures

    @property
    def effects(self) -> dict[Measure, Interval]:
        """Candidate over baseline so far, by every measure of which there are pairs."""
        return {measure: test.interval() for measure, test in self._tests.items() if len(test)}

    @property
    def slower(self) -> tuple[PartEffect, ...]:
        """Parts of the load that the candidate made slower."""
        return self._parts.slower()

    @property
    def _test(self) -> PairedTest:
        return self._tests[self._plan.measure]

    def verdict(self) -> Verdict:
        try:
            self._refer_to(self._baseline())
        except MemoryRunsOut as found:
            reason = f"{found}, before the candidate was tried"
            return Verdict(Outcome.UNDECIDED, *self._test.interval(), (), reason)
        try:
            return self._verdict_on_candidate()
        except MemoryRunsOut as found:
            return self._aborted(str(found))

    def _verdict_on_candidate(self) -> Verdict:
        settled = 0
        while settled < self._plan.max_pairs:
            if self._is_late():
                return self._conclude(Outcome.UNDECIDED, "its time was over before the evidence sufficed")
            candidate_first = self._rng.random() < 0.5
            windows, is_settled = self._pair(candidate_first)
            settled += is_settled
            if not self._can_refer_to(self._reference):
                # not this pair's own: its figures would hang on which of its blocks was the baseline
                self._refer_to(windows[Arm.BASELINE])
                continue
            candidate = self._health(windows[Arm.CANDIDATE])
            if found := self._breach(candidate, windows[Arm.BASELINE], candidate_first):
                if self._has_stalled or not found.may_be_a_stall:
                    return self._aborted(found.reason, candidate.mean_seconds)
                self._has_stalled = True
            if is_settled:
                self._add(windows, candidate_first)
            if decision := self._decision():
                return self._conclude(decision.outcome, decision.reason)
        return self._conclude(Outcome.UNDECIDED, "the pairs were used up before the evidence sufficed")

    def _decision(self) -> Decision | None:
        """Decide by the objective, unless a single part of the load has a veto, or may have one yet."""
        if gone := self._parts.gone():
            return Decision(Outcome.ABORTED, gone)
        decision = decide(self._test, self._plan.thresholds)
        is_early = len(self._test) < self._plan.thresholds.min_pairs
        if is_early or (decision and decision.outcome is not Outcome.PROMOTED):
            return decision
        if veto := self._parts.veto():
            return Decision(Outcome.REJECTED, _too_slow(veto, self._plan.guards.part_ratio))
        return None if decision and self._parts.suspect() else decision

    @property
    def _are_ours(self) -> bool:
        """Whether the load is ours: then its connections are part of the configuration, or operations were seen."""
        is_known = CONCURRENCY in self._blocks.change.before
        return is_known or any(window.operations_total for window in self.in_all.values())

    def _baseline(self) -> Window:
        window = self._blocks.baseline()
        self._remember(Arm.BASELINE, window)
        return window

    def _pair(self, candidate_first: bool) -> RunPair:
        pair = self._looks.pair(candidate_first, self._reference)
        if pair.is_settled:
            for arm, window in pair.windows.items():
                self._remember(arm, window)
        return pair

    def _remember(self, arm: Arm, window: Window) -> None:
        self.in_all[arm] = merge(self.in_all[arm], window) if arm in self.in_all else window

    def _refer_to(self, window: Window) -> None:
        self._reference = window
        self._worst = self._health(window)

    def _can_refer_to(self, window: Window) -> bool:
        """Tell whether anything finished in `window` that others could be compared with."""
        return bool(window.operations_total if self._are_ours else window.statements)

    def _health(self, window: Window) -> Health:
        return Health.of(window, reference=self._reference)

    def _breach(self, candidate: Health, baseline: Window, candidate_first: bool) -> Breach | None:
        """Return what the guards have to say of the candidate's block, after another one of the baseline."""
        self._worst = self._worst.worst(self._health(baseline))
        is_last = self._blocks.design is not Design.CONCURRENT and not candidate_first
        if breach(candidate, self._worst, self._plan.guards) and is_last:
            # the baseline gets another block: what hit the candidate alone may have come from elsewhere
            self._worst = self._worst.worst(self._health(self._baseline()))
        return breach(candidate, self._worst, self._plan.guards)

    def _is_late(self) -> bool:
        return self._deadline.is_over(
            self._clock.monotonic_seconds(),
            began_seconds=self._began_seconds,
            progress=self._test.progress_below(1),
        )

    def _add(self, windows: Mapping[Arm, Window], candidate_first: bool) -> None:
        self._parts.add(windows, candidate_first=candidate_first)
        for measure in self._tests if self._are_ours else (self._plan.measure,):
            baseline_seconds, candidate_seconds = paired_objective(
                windows[Arm.BASELINE], windows[Arm.CANDIDATE], reference=self._reference, measure=measure
            )
            # a pair in which nothing ran in one of the arms says nothing; NaN fails both comparisons
            if baseline_seconds > 0 and candidate_seconds > 0:
                pair = Pair(baseline_seconds, candidate_seconds, candidate_first)
                self._tests[measure].add(pair)
                if measure is self._plan.measure:
                    self._pairs.append(pair)
                    self._on_pair(len(self._pairs), self._test.interval())

    def _conclude(self, outcome: Outcome, reason: str) -> Verdict:
        ratio, low, high = self._test.interval()
        if not self._pairs:
            why = (
                "too little ran in both blocks" if self._can_refer_to(self._reference) else "nothing was seen to run"
            )
            reason = f"no pair could be compared, for {why}; {reason}"
        if outcome is Outcome.UNDECIDED and self._test.is_below(1) and (suspect := self._parts.suspect()):
            reason = f"{_too_slow(suspect, self._plan.guards.part_ratio)}, unproven; {reason}"
        return Verdict(outcome, ratio, low, high, tuple(self._pairs), reason)

    def _aborted(self, reason: str, candidate_mean_seconds: float = math.nan) -> Verdict:
        ratio, low, high = self._test.interval()
        if not self._pairs:
            ratio = candidate_mean_seconds / self._worst.mean_seconds
            # what finishes nothing has no mean, and takes for ever
            ratio = math.inf if math.isnan(ratio) else ratio
        return Verdict(Outcome.ABORTED, ratio, low, high, tuple(self._pairs), reason)


def _too_slow(effect: PartEffect, limit_ratio: float) -> str:
    ratio, low, high = effect.ratio
    interval = f"{low:.3g} to {high:.3g}" if low > 0 and math.isfinite(high) else "too few pairs for an interval"
    return f"{effect.part} takes {ratio:.3g} times as long ({interval}), the limit being {limit_ratio:g}"
