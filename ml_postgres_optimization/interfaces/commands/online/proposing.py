"""``optimize --action advise``: watch the load, say what would be tried, and change nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.interfaces.commands.online.advice import left_out_table, restart_tables, sql_of
from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import changes_text, percent_change
from ml_postgres_optimization.interfaces.workbench.bench import own_load
from ml_postgres_optimization.interfaces.workbench.ground import Ground, survey
from ml_postgres_optimization.interfaces.workbench.learned import load_forest
from ml_postgres_optimization.interfaces.workbench.load import running
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.safety.constraints import CONSTRAINING_SETTINGS, Circumstances, review
from ml_postgres_optimization.telemetry import Recorder, Window
from ml_postgres_optimization.tuning.progress import seen
from ml_postgres_optimization.tuning.proposing.drafting import Draft, ranked_by_model, rule_drafts
from ml_postgres_optimization.tuning.proposing.relevance import Observed
from ml_postgres_optimization.tuning.proposing.remedies import remedies
from ml_postgres_optimization.tuning.search import SearchSpace

# Long enough that a query of some seconds ends in it.
_WATCHED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Advice:
    """One configuration that is worth a trial."""

    configuration: Configuration
    origin: str
    reason: str
    expected_ratio: float = math.nan


def propose(session: Session) -> Result:
    """Watch the load for a minute at most, and return what would be tried, each by itself, as SQL.

    Where the sessions are not ours, only what is seen of them counts; load of ours runs only where it may.

    Raises
    ------
    GenesisError
        Of the kind that fits.
    """
    with _observed(session) as (ground, window):
        proposals = list(_proposals(session, ground, window))
        document = {
            "observed": seen(window),
            "proposals": [_json(ground, advice) for advice in proposals],
            "restart_advice": dict(ground.advice().restart_advice),
            "left_out": dict(ground.catalogue.left_out),
        }
        tables = [_table(ground, proposals), *restart_tables(ground), left_out_table(ground)]
        return Result(document, tables, _lines(ground, window, proposals))


@contextmanager
def _observed(session: Session) -> Iterator[tuple[Ground, Window]]:
    seconds = min(_WATCHED_SECONDS, session.settings.duration_seconds)
    session.reporter.say(f"Watching the load for {seconds:.0f} s; nothing is changed.")
    if not session.may_load:
        ground = survey(session)
        yield ground, Recorder(session.target, session.clock).record(seconds, configuration_id=ground.initial.id)
        return
    offer = own_load(session)
    ground = survey(session, connections=offer.plan.connections)
    with running(session, offer.plan) as load:
        recorder = Recorder(session.target, session.clock, samples=load.samples)
        yield ground, recorder.record(seconds, configuration_id=ground.initial.id)


def _proposals(session: Session, ground: Ground, window: Window) -> Iterator[_Advice]:
    """Yield what the guard would let pass, each once: rules first, then symptoms, then what the forest expects."""
    initial, told = ground.initial, set[Configuration]()
    observed = Observed(window, session.target.machine)
    drafts = (*rule_drafts(ground.advised, initial), *remedies(observed, initial, ground.catalogue))
    forest = _Forest(session, ground, window)
    for advice in (*(_drafted(draft, initial) for draft in drafts), *forest.best()):
        if advice.configuration in told | {initial} or not ground_allows(ground, advice.configuration):
            continue
        told.add(advice.configuration)
        yield forest.expecting(advice)


def _drafted(draft: Draft, initial: Configuration) -> _Advice:
    return _Advice(initial.replaced(draft.values(initial)), draft.origin, draft.reason)


def ground_allows(ground: Ground, configuration: Configuration) -> bool:
    """Tell whether the guard would let `configuration` pass."""
    target = ground.session.target
    names = {*ground.catalogue.settings_needed, *CONSTRAINING_SETTINGS, *configuration}
    circumstances = Circumstances(
        ground.catalogue, target.settings(names), target.machine, target.capabilities, ground.connections
    )
    try:
        review(configuration, circumstances, before=ground.initial)
    except ChangeRefused:
        return False
    return True


class _Forest:
    """What was learned from a simulation; asked only where it beats the naive forecast."""

    def __init__(self, session: Session, ground: Ground, window: Window) -> None:
        learned = load_forest(session, KnobForest)
        self._model = learned.model if learned and learned.model.score.beats_naive else None
        self._context = LoadContext.of(window)
        self._ground = ground
        self._seed = session.settings.seed

    def best(self) -> list[_Advice]:
        """Return what it expects most of."""
        if self._model is None:
            return []
        initial = self._ground.initial
        configurations = ranked_by_model(
            self._model,
            self._context,
            initial,
            SearchSpace.of(self._ground.catalogue, names=tuple(initial)),
            allows=lambda configuration: ground_allows(self._ground, configuration),
            seed=self._seed,
        )
        reason = "the forest that learned from the simulation expects most of it"
        return [_Advice(configuration, "forest", reason) for configuration in configurations]

    def expecting(self, advice: _Advice) -> _Advice:
        """Return `advice` with what it expects of the response: new over old."""
        if self._model is None:
            return advice
        logs, _ = self._model.predict_many([self._ground.initial, advice.configuration], self._context)
        ratio = float(np.exp(logs[1] - logs[0]))
        return _Advice(advice.configuration, advice.origin, advice.reason, ratio)


def _json(ground: Ground, advice: _Advice) -> dict[str, object]:
    return {
        "id": advice.configuration.id,
        "origin": advice.origin,
        "reason": advice.reason,
        "changes": {name: list(pair) for name, pair in advice.configuration.difference(ground.initial).items()},
        "sql": sql_of(ground, advice.configuration),
        "expected_ratio": None if math.isnan(advice.expected_ratio) else advice.expected_ratio,
    }


def _table(ground: Ground, proposals: Sequence[_Advice]) -> Table:
    rows = [
        (
            advice.configuration.id,
            changes_text(ground.initial, advice.configuration, ground.catalogue),
            advice.reason,
            "–" if math.isnan(advice.expected_ratio) else percent_change(advice.expected_ratio),
        )
        for advice in proposals
    ]
    columns = ("configuration", "changes", "why", "expected response")
    return Table("What is worth a trial", columns, rows or [("none", "", "", "")], unbroken=1)


def _lines(ground: Ground, window: Window, proposals: Sequence[_Advice]) -> list[str]:
    lines = [f"-- Seen: {seen(window)}. Unproven, each for itself; nothing was changed."]
    for advice in proposals:
        lines += [f"-- {advice.configuration.id}: {advice.reason}", *sql_of(ground, advice.configuration)]
    return [*lines, "SELECT pg_reload_conf();"] if proposals else lines
