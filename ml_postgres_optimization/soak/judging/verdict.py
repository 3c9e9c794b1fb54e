"""The verdict on a run: each criterion passed, failed or not decidable, with its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.judging.drift.assessment import Drift, assess
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.metrics import BLOAT, CLIENT_MEMORY, METRICS, SERVER_MEMORY, Metric
from ml_postgres_optimization.soak.judging.outcome import Finding, Outcome
from ml_postgres_optimization.soak.judging.quantity import Dimension, shown
from ml_postgres_optimization.soak.judging.service import burn_finding, latency_findings, success_finding

# Watched whatever the criteria ask, since growth is judged by them and readers want to see them.
_GROWING: Mapping[str, Metric] = {"client_memory": CLIENT_MEMORY, "server_memory": SERVER_MEMORY, "bloat": BLOAT}

_INTEGRITY = "integrity"

# Below it, 5 % of series without any growth look like this.
_GROWN_SCORE = 1.645


class Result(StrEnum):
    """What a run is said to be, as a whole."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "not decidable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run held.

    Parameters
    ----------
    findings : tuple of Finding
        One for each criterion.
    drifts : dict of str to Drift
        By metric, those that are judged and those that are only watched.
    undecided_fails : bool
    """

    findings: tuple[Finding, ...]
    drifts: Mapping[str, Drift]
    undecided_fails: bool = False

    @property
    def result(self) -> Result:
        """Failed where a criterion failed; else passed where one passed; else not decidable.

        That no operation was lost shows alone nothing of a run, and without it the rest shows nothing.
        """
        outcomes = {finding.outcome for finding in self.findings}
        if Outcome.FAILED in outcomes or (self.undecided_fails and Outcome.UNDECIDED in outcomes):
            return Result.FAILED
        integrity = {finding.outcome for finding in self.findings if finding.name == _INTEGRITY}
        passed = [one for one in self.findings if one.name != _INTEGRITY and one.outcome is Outcome.PASSED]
        return Result.PASSED if passed and Outcome.UNDECIDED not in integrity else Result.UNDECIDED

    @property
    def exit_code(self) -> int:
        """0 where the run passed, else 1: a run that shows nothing has not shown that it holds."""
        return 0 if self.result is Result.PASSED else 1


def judge(figures: RunFigures, limits: Limits) -> Verdict:
    """Compare a run with its limits.

    Intervals in which the runner was away, or whose record is lost, count for nobody; what came due while the server
    was down did not succeed.
    """
    watched = {**{name: METRICS[name] for name in limits.drift.metrics}, **_GROWING}
    drifts = assess(figures, watched, limits.drift.minimum_ratio, limits.drift.confidence_ratio)
    findings = [
        *_integrity(figures),
        success_finding(figures, limits.success_ratio),
        *latency_findings(figures, limits),
        *burn_finding(figures, limits),
        *_growth_findings(drifts, limits),
        *_drift_finding(drifts, limits),
    ]
    return Verdict(tuple(findings), drifts, limits.undecided_fails)


def _integrity(figures: RunFigures) -> Iterator[Finding]:
    violation, is_settled = figures.description.violation, figures.description.is_settled
    title = "Operations lost or doubled"
    if violation is not None:
        yield Finding(_INTEGRITY, title, Outcome.FAILED, "violated", "none", violation)
    elif is_settled:
        evidence = "After the load's end the ledger held what was acknowledged, and the balances added up."
        yield Finding(_INTEGRITY, title, Outcome.PASSED, "none", "none", evidence)
    elif is_settled is not None:
        evidence = "After the load's end the ledger could not be looked at; until then nothing was missing."
        yield Finding(_INTEGRITY, title, Outcome.UNDECIDED, "–", "none", evidence)


def _growth_findings(drifts: Mapping[str, Drift], limits: Limits) -> Iterator[Finding]:
    hours = Dimension.BYTES_PER_HOUR
    for name, limit in {
        "client_memory": limits.client_memory_bytes_per_hour,
        "server_memory": limits.server_memory_bytes_per_hour,
    }.items():
        drift = drifts[name]
        if limit is not None:
            slopes = (drift.slope_per_hour, drift.late_slope_per_hour)
            yield _growth(f"{name}_growth", drift, slopes, limit, hours)
    if limits.bloat_growth_ratio is not None:
        drift = drifts["bloat"]
        run_hours = drift.blocks_total * drift.block_seconds / 3600
        late = drift.late_slope_per_hour * run_hours / drift.level if drift.level else 0.0
        yield _growth("bloat_growth", drift, (drift.change_ratio, late), limits.bloat_growth_ratio, Dimension.GROWTH)


def _growth(name: str, drift: Drift, found: tuple[float, float], limit: float, dimension: Dimension) -> Finding:
    """Fail growth that is beyond its limit, over the run and still in its second half: what fills up ends."""
    title = f"Growth of {drift.metric.title}"
    at_most = f"at most {shown(limit, dimension)}"
    if drift.doubt is not None:
        return Finding(name, title, Outcome.UNDECIDED, "–", at_most, drift.doubt)
    has_grown = drift.plain_score > _GROWN_SCORE
    outcome = Outcome.FAILED if min(found) > limit and has_grown else Outcome.PASSED
    evidence = (
        f"Theil-Sen slope of {drift.blocks_total} medians of {drift.block_seconds / 60:.3g} min after the warm-up; "
        f"in the second half of the run {shown(found[1], dimension)}. Mann-Kendall score {drift.plain_score:+.1f}"
        f"{'' if has_grown else ': no growth'}."
    )
    return Finding(name, title, outcome, shown(found[0], dimension), at_most, evidence, found[0], limit)


def _drift_finding(drifts: Mapping[str, Drift], limits: Limits) -> Iterator[Finding]:
    judged = [drifts[name] for name in limits.drift.metrics]
    if not judged:
        return
    title, below = "Change for the worse", f"below {shown(limits.drift.minimum_ratio, Dimension.RATIO)} over the run"
    worse = [drift for drift in judged if drift.is_worse]
    if worse:
        changes = ", ".join(f"{one.metric.title} {shown(one.change_ratio, Dimension.GROWTH)}" for one in worse)
        evidence = "; ".join(f"{one.metric.title}: by accident {_probability(one.probability)}" for one in worse)
        yield Finding("drift", title, Outcome.FAILED, changes, below, f"{evidence}, after Holm's correction.")
        return
    doubts = [f"{one.metric.title}: {one.doubt}" for one in judged if one.doubt is not None]
    known = [one for one in judged if one.doubt is None]
    hidden = [one for one in known if one.detectable_ratio > limits.drift.detectable_ratio]
    if hidden:
        doubts.append(f"{_detectable(hidden)} Smaller ones are hidden by the noise of so short a run.")
    if doubts:
        yield Finding("drift", title, Outcome.UNDECIDED, "–", below, " ".join(doubts))
    else:
        yield Finding("drift", title, Outcome.PASSED, "none found", below, _detectable(known))


def _detectable(drifts: Iterable[Drift]) -> str:
    sizes = ", ".join(f"{one.metric.title} {shown(one.detectable_ratio, Dimension.GROWTH)}" for one in drifts)
    return f"What would have been found in nine runs of ten: {sizes}."


def _probability(probability: float) -> str:
    return "p < 0.001" if probability < 0.001 else f"p = {probability:.2g}"
