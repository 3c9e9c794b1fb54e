"""``tune``: find a configuration for a workload that runs for the tuning alone."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from hashlib import sha256

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.commands.offline.artefacts import (
    require_writable,
    sql_text,
    texts_of,
    write_artefacts,
)
from ml_postgres_optimization.interfaces.commands.offline.bringing import Brought, bring, chosen_workload
from ml_postgres_optimization.interfaces.commands.offline.tuned_page import tuned_page
from ml_postgres_optimization.interfaces.commands.online.listening import Listener
from ml_postgres_optimization.interfaces.commands.online.optimization import require_something_to_tune
from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import changes_text, interval_text, shown, trial_json
from ml_postgres_optimization.interfaces.workbench.bench import Workbench, open_workbench, require_consent
from ml_postgres_optimization.interfaces.workbench.ground import Ground, survey
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import Scope
from ml_postgres_optimization.trials import Design, Interval, Measure, TrialPlan
from ml_postgres_optimization.tuning import Budget, Draft, open_study
from ml_postgres_optimization.tuning.offline import OfflineTuner, Tuned
from ml_postgres_optimization.tuning.search.memory import require_storage

# How many blocks the time is cut into, the shortest and the longest: enough for a score of candidates.
_BLOCKS, _SHORTEST_BLOCK_SECONDS, _LONGEST_BLOCK_SECONDS = 96, 4.0, 20.0
_WARM_UP_OF_BLOCK, _LONGEST_WARM_UP_SECONDS = 0.8, 10.0
_ROUNDS = 2
_LEAST_RESTARTED = 20
_MOST_PAIRS = 60
# Six pairs of a proof take thirteen, in half of the time at most; the rest is for a few of the start and candidates.
_LEAST_BLOCKS = 30


def tune(session: Session, *, dry_run: bool = False) -> Result:
    """Search a configuration for the chosen workload, prove it, and write it to files.

    Returns
    -------
    Result
        Exit code 1 where nothing was proven better.

    Raises
    ------
    GenesisError
        Of the kind that fits; what was in force at the start is in force then, or will be at the next start.
    """
    workload = chosen_workload(session)
    if dry_run:
        return _preview(session, workload.name)
    require_consent(session)
    require_writable(session.settings.output or session.home.logs)
    # before any table is made
    require_storage(session.settings.study)
    require_something_to_tune(session, survey(session, connections=session.settings.clients, is_offline=True))
    observer = Observer(session)
    with session.sole_optimizer() as journal, observer.saving():
        brought = bring(session, workload)
        with open_workbench(session, journal, observer, brought.offer, is_offline=True) as workbench:
            tuned = tune_on(session, workbench, brought, session.settings.duration_seconds)
    csv = observer.write_csv()
    return _told(session, workbench.ground.catalogue, workload.name, tuned, str(csv or ""))


def tune_on(session: Session, workbench: Workbench, brought: Brought, seconds: float, *, prove: bool = True) -> Tuned:
    """Run the offline tuner for `seconds` on an open workbench, telling the user and the repository what happens."""
    ground = workbench.ground
    plan = plan_for(session, seconds, round_seconds=measured_round(workbench, brought))
    study = open_study(
        workbench.laboratory,
        ground.initial,
        folder=session.settings.study or session.home.studies_of(session.server),
        workload=f"tune-{brought.workload.name}",
        seed=session.settings.seed,
        worker=_worker(session) if session.settings.study else "",
        elsewhere=session.home.studies_of_others(session.server),
        names=_searched(ground, plan, seconds),
    )
    tuner = OfflineTuner(
        workbench.laboratory,
        study,
        plan,
        subscribers=[Listener(session, workbench.observer)],
    )
    budget = Budget(seconds, trials=session.settings.trials, prove=prove)
    return tuner.run(ground.initial, offline_drafts(ground), budget)


def _worker(session: Session) -> str:
    """Return who we are among those that share a study: the same whenever we come again."""
    place = sha256(str(session.home.of_server(session.server)).encode()).hexdigest()[:8]
    return f"{platform.node()}-{place}"


def _searched(ground: Ground, plan: TrialPlan, seconds: float) -> list[str]:
    """Return the knobs to search: those that need a restart only where there is time for a score of such trials.

    Almost every proposal would differ in one of them, and take as long as two that need no restart; what the rules
    say of them is tried in any case.
    """
    has_time = seconds >= _LEAST_RESTARTED * plan.seconds_for(1, design=Design.RESTART)
    return [name for name in ground.initial if has_time or ground.catalogue[name].scope is not Scope.RESTART]


def measured_round(workbench: Workbench, brought: Brought) -> float:
    """Return how long a round of all scripts takes as they run beside each other; 0 where there is but one."""
    cards = len(brought.workload.mix.deck)
    if cards <= 1:
        return 0.0
    seconds = max(_SHORTEST_BLOCK_SECONDS, brought.round_seconds)
    # the first fills the caches: it takes half as long again as those that come
    workbench.laboratory.watch(seconds, workbench.ground.initial)
    window = workbench.laboratory.watch(seconds, workbench.ground.initial)
    per_second = window.operations_total / window.duration_seconds
    return cards / per_second if per_second else brought.round_seconds


def plan_for(session: Session, seconds: float, *, round_seconds: float) -> TrialPlan:
    """Choose the length of a block: so that a score of candidates fits in, and every script ends in it.

    Each client process plays rounds of its own, so that within two of them hardly a script is missing.

    Raises
    ------
    UsageError
        If too few of such blocks fit into the time.
    """
    wanted = min(_LONGEST_BLOCK_SECONDS, max(_SHORTEST_BLOCK_SECONDS, seconds / _BLOCKS))
    block_seconds = max(wanted, _ROUNDS * round_seconds)
    if (needed_seconds := _LEAST_BLOCKS * block_seconds) > max(seconds, _LEAST_BLOCKS * _SHORTEST_BLOCK_SECONDS):
        raise UsageError(
            f"A round of all scripts takes {round_seconds:,.1f} s, so that {seconds:,.0f} s hold too few blocks to "
            "compare anything.",
            f"Give --duration {math.ceil(needed_seconds / 36) / 100:g} or more, smaller tables, or weights that are "
            "less far apart.",
        )
    return TrialPlan(
        block_seconds=block_seconds,
        warm_up_seconds=min(_WARM_UP_OF_BLOCK * block_seconds, _LONGEST_WARM_UP_SECONDS),
        max_pairs=_MOST_PAIRS,
        measure=Measure(session.settings.objective),
    )


def offline_drafts(ground: Ground) -> list[Draft]:
    """Return what the rules say; where that is no gain, without what needs a restart, and then only that."""
    catalogue = ground.catalogue

    def advised(incumbent: Configuration, *, by_restart: bool | None = None) -> Configuration:
        told = ground.advised(incumbent)
        wanted = {
            name: value
            for name, value in told.items()
            if by_restart is None or (catalogue[name].scope is Scope.RESTART) == by_restart
        }
        return incumbent.replaced(wanted)

    return [
        Draft(advised, "rules", "what the rules say of this machine"),
        Draft(
            lambda incumbent: advised(incumbent, by_restart=False),
            "rules",
            "what the rules say, without a restart",
            is_alternative=True,
        ),
        Draft(
            lambda incumbent: advised(incumbent, by_restart=True),
            "rules",
            "what the rules say of what needs a restart",
            is_alternative=True,
        ),
    ]


def _preview(session: Session, workload: str) -> Result:
    """Say what would be searched and tried first, and change nothing."""
    ground = survey(session, connections=session.settings.clients, is_offline=True)
    initial = ground.initial
    advised = Tuned(initial, ground.advised(initial))
    names, catalogue = sorted(initial), ground.catalogue
    heading = f"Tried first for workload {workload}; nothing was changed:"
    sql = sql_text(advised, catalogue, heading).splitlines()
    rows = [(name, shown(name, initial[name], catalogue), catalogue[name].scope.name.lower()) for name in names]
    document = {"workload": workload, "knobs": names, "sql": sql, "left_out": dict(catalogue.left_out)}
    left_out = Table("Not tuned here", ("knob", "why"), sorted(catalogue.left_out.items()))
    return Result(document, [Table("Searched", ("knob", "now", "takes effect by"), rows), left_out], sql)


def _told(session: Session, catalogue: Catalogue, workload: str, tuned: Tuned, csv: str) -> Result:
    heading = f"genesis-pg tune, run {session.run}, workload {workload}, on {session.connection.display}"
    document = _document(workload, tuned) | {"csv": csv}
    tables = (_trials_table(tuned, catalogue), _changed_table(tuned, catalogue))
    story, now = list(_story(tuned)), session.clock.now()
    page = tuned_page(tuned, catalogue, heading=heading, story=story, tables=tables, made_at=now)
    texts = texts_of(tuned, catalogue, heading, document) | {"html": page}
    files = write_artefacts(session.settings.output or session.home.logs, f"tuned-{session.run}", texts)
    document["files"] = {suffix: str(path) for suffix, path in files.items()}
    lines = [*story, *(f"Written: {path}" for path in files.values())]
    return Result(document, tables, lines, 0 if tuned.is_proven else 1)


def _story(tuned: Tuned) -> Iterator[str]:
    if tuned.best == tuned.initial:
        yield f"Of {len(tuned.trials)} candidates none was preferred to what was in force, which stays."
        return
    if tuned.proof is None or tuned.proven is None:
        yield "There was no time to prove what was found: what was in force at the start is in force again."
        return
    told = f"{interval_text(tuned.proven)} in response time, over {len(tuned.proof.verdict.pairs)} pairs"
    if tuned.is_proven:
        yield f"Proven against what was in force at the start: {told}."
        yield "It is in force now; genesis-pg rollback puts back what was."
    else:
        yield f"Not proven ({tuned.proof.verdict.outcome}): {told}. What was in force at the start is in force again."


def _document(workload: str, tuned: Tuned) -> dict[str, object]:
    proven = tuned.proven
    return {
        "workload": workload,
        "initial": {"id": tuned.initial.id, "values": dict(tuned.initial)},
        "best": {"id": tuned.best.id, "values": dict(tuned.best)},
        "in_force": tuned.in_force.id,
        "is_proven": tuned.is_proven,
        "proven": proven._asdict() if proven else None,
        "changes": {
            name: {"before": old, "after": new} for name, (old, new) in tuned.best.difference(tuned.initial).items()
        },
        "trials": [trial_json(trial) for trial in tuned.trials],
        "proof": trial_json(tuned.proof) if tuned.proof else None,
    }


def _changed_table(tuned: Tuned, catalogue: Catalogue) -> Table:
    rows = [
        (name, shown(name, old, catalogue), shown(name, new, catalogue), catalogue[name].scope.name.lower())
        for name, (old, new) in tuned.best.difference(tuned.initial).items()
    ]
    return Table("What was found", ("knob", "before", "found", "takes effect by"), rows or [("nothing", "", "", "")])


def _trials_table(tuned: Tuned, catalogue: Catalogue) -> Table:
    trials = (*tuned.trials, *((tuned.proof,) if tuned.proof else ()))
    rows = [
        (
            str(trial.verdict.outcome),
            changes_text(trial.baseline, trial.proposal.configuration, catalogue),
            interval_text(Interval(trial.verdict.ratio, trial.verdict.ratio_low, trial.verdict.ratio_high)),
            str(len(trial.verdict.pairs)),
            trial.proposal.origin,
        )
        for trial in trials
    ]
    return Table("Trials", ("outcome", "change", "response time", "pairs", "proposed by"), rows)
