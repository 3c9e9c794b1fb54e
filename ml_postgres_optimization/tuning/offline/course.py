"""One screening: blocks of a candidate, beside the latest blocks of the incumbent."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import reduce
from statistics import fmean

from ml_postgres_optimization.telemetry import Window, merge
from ml_postgres_optimization.trials import (
    Arm,
    BlocksInTurn,
    Breach,
    Endings,
    Health,
    Interval,
    MemoryRunsOut,
    Outcome,
    Pair,
    Verdict,
    breach,
    figures_of,
    paired_objective,
)
from ml_postgres_optimization.tuning.offline.screening import Noise, Screening, Seen

OnBlock = Callable[[int, Interval], None]
# Of the incumbent's blocks, the latest so many count; and after so many of candidates' there must be another one, as
# the machine's good and bad times last.
_LATEST = 4
_LONGEST_AGO = 3


class Latest:
    """The latest blocks of the incumbent, what they differ by, and how long ago they were.

    Parameters
    ----------
    windows : sequence of Window
        Blocks of the incumbent, oldest first; without any, the first is due.

    Attributes
    ----------
    is_stale : bool
        Whether another block of the incumbent is due before the next of a candidate.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = deque([window for window in windows if window.operations_total] or windows, maxlen=_LATEST)
        self.is_stale = not self.windows
        self._candidates_since = 0

    @property
    def reference(self) -> Window:
        """The last of them, by whose mix of operations all are weighted."""
        return self.windows[-1]

    def add(self, window: Window) -> None:
        """Take one more block of the incumbent, if anything ended in it, or there is no other."""
        if window.operations_total or not self.windows:
            self.windows.append(window)
        self.is_stale, self._candidates_since = False, 0

    def pass_over(self) -> None:
        """Know that a block of a candidate was run."""
        self._candidates_since += 1
        self.is_stale |= self._candidates_since >= _LONGEST_AGO


class Course:
    """Run blocks until a screening has decided.

    Blocks of the incumbent are shared: a candidate that its first block shows to be slow costs one block, not a pair.
    One that is not given up gets the incumbent's blocks in turn with its own, so that both have the same times.

    Parameters
    ----------
    blocks : BlocksInTurn
    latest : Latest
        Of the incumbent; blocks of it that are run here are added.
    screening : Screening
    noise : Noise
    on_block : callable
        Receives the number of the candidate's blocks and the interval after each.
    has_time : callable
        Tells whether there is time for a block of each arm.
    """

    def __init__(
        self,
        blocks: BlocksInTurn,
        latest: Latest,
        screening: Screening,
        noise: Noise,
        *,
        on_block: OnBlock,
        has_time: Callable[[], bool],
    ) -> None:
        self._blocks = blocks
        self._latest = latest
        self._screening = screening
        self._noise = noise
        self._on_block = on_block
        self._has_time = has_time
        self._has_stalled = False
        self.windows: list[Window] = []
        self.pairs: list[Pair] = []

    def verdict(self) -> Verdict:
        """Run it, and return what came out."""
        if self._latest.is_stale and (reason := self._run_incumbent()):
            return self._ended(Outcome.UNDECIDED, f"{reason}, before the candidate was tried")
        self._reference = self._latest.reference
        try:
            return self._verdict_on_candidate()
        except MemoryRunsOut as found:
            return self._ended(Outcome.ABORTED, str(found))

    def _verdict_on_candidate(self) -> Verdict:
        for _ in range(self._screening.max_blocks):
            window = self._run_candidate()
            if found := self._breach(window):
                if self._has_stalled or not found.may_be_a_stall:
                    return self._ended(Outcome.ABORTED, found.reason)
                self._has_stalled = True
            if gone := self._gone():
                return self._ended(Outcome.ABORTED, gone)
            is_last = not self._has_time()
            if self.windows and (decision := self._screening.decide(self._seen(), is_last=is_last)):
                return self._ended(decision.outcome, decision.reason)
            if is_last:
                break
            if reason := self._run_incumbent():
                return self._ended(Outcome.UNDECIDED, f"{reason}, in a block of what was in force before")
        return self._ended(Outcome.UNDECIDED, "too little ran in its blocks to tell")

    @property
    def figures(self) -> dict[str, float]:
        """Both arms in figures, over the blocks that were compared; none where none was."""
        if not self.windows:
            return {}
        in_all = {arm: reduce(merge, windows) for arm, windows in self._windows_of_arms().items()}
        return figures_of(in_all, self._blocks.design)

    def logs(self, windows: Sequence[Window]) -> list[float]:
        """Return the log of the objective in each, relative to the reference's; what cannot be compared is absent."""
        values = [self._objective(window) for window in windows]
        return [math.log(this / first) for first, this in values if this > 0 and first > 0]

    def _objective(self, window: Window) -> tuple[float, float]:
        return paired_objective(self._reference, window, reference=self._reference, measure=self._blocks.plan.measure)

    def _run_incumbent(self) -> str | None:
        """Run a block of the incumbent; return why it was cut off, if it was: that says nothing of the candidate."""
        try:
            self._latest.add(self._blocks.block(Arm.BASELINE))
        except MemoryRunsOut as found:
            return str(found)
        return None

    def _run_candidate(self) -> Window:
        # one that is cut off took its time too
        self._latest.pass_over()
        window = self._blocks.block(Arm.CANDIDATE)
        first, this = self._objective(window)
        if first > 0 and this > 0:
            self.windows.append(window)
            self.pairs.append(Pair(self._incumbent_seconds(first), this, candidate_first=False))
            self._on_block(len(self.windows), self._screening.interval(self._seen()))
        return window

    def _incumbent_seconds(self, reference_seconds: float) -> float:
        return reference_seconds * math.exp(fmean(self.logs(self._latest.windows)))

    def _seen(self) -> Seen:
        candidate, incumbent = self.logs(self.windows), self.logs(self._latest.windows)
        deviation = self._noise.deviation * math.sqrt(1 / len(candidate) + 1 / len(incumbent))
        return Seen(fmean(candidate) - fmean(incumbent), deviation, len(candidate))

    def _breach(self, window: Window) -> Breach | None:
        worst = Health.of(self._reference, reference=self._reference)
        for other in self._latest.windows:
            worst = worst.worst(Health.of(other, reference=self._reference))
        return breach(Health.of(window, reference=self._reference), worst, self._blocks.plan.guards)

    def _gone(self) -> str | None:
        """Say what stopped ending under the candidate: with as much certainty as is asked of one that is faster."""
        if math.isinf(self._blocks.plan.guards.part_ratio):
            return None
        endings = Endings()
        for arm, windows in self._windows_of_arms().items():
            for window in windows:
                endings.add(arm, window)
        return endings.gone((1 - self._screening.sure) / max(1, len(self._reference.operations)))

    def _windows_of_arms(self) -> dict[Arm, Sequence[Window]]:
        return {Arm.BASELINE: self._latest.windows, Arm.CANDIDATE: self.windows}

    def _ended(self, outcome: Outcome, reason: str) -> Verdict:
        ratio, low, high = self._screening.interval(self._seen()) if self.windows else (math.nan, 0.0, math.inf)
        return Verdict(outcome, ratio, low, high, tuple(self.pairs), reason)
