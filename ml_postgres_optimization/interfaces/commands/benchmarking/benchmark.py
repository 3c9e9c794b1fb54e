"""``benchmark``: base against optimised, on the same load, in blocks that alternate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization import __version__
from ml_postgres_optimization.comparison.arm import Arm, Part
from ml_postgres_optimization.comparison.ledger import Ledger
from ml_postgres_optimization.comparison.measuring.faulting import WANTED_ERROR_RATIOS
from ml_postgres_optimization.comparison.plan import Cell, ComparisonPlan
from ml_postgres_optimization.comparison.runner import run_comparison
from ml_postgres_optimization.comparison.terms import Terms
from ml_postgres_optimization.comparison.verdict import LevelSeen, judged
from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.commands.benchmarking.configurations import (
    Configurations,
    compared,
    stock_of,
)
from ml_postgres_optimization.interfaces.commands.benchmarking.foretelling import Forecast
from ml_postgres_optimization.interfaces.commands.benchmarking.limits import limits_told
from ml_postgres_optimization.interfaces.commands.benchmarking.pages import comparison_page
from ml_postgres_optimization.interfaces.commands.benchmarking.stage import (
    RENEWAL_SECONDS_AT_SCALE_1,
    ServerStage,
    longest_seconds,
    plain_pool,
)
from ml_postgres_optimization.interfaces.commands.benchmarking.tables import document_of, story_of, tables_of
from ml_postgres_optimization.interfaces.commands.offline.artefacts import require_writable, write_artefacts
from ml_postgres_optimization.interfaces.commands.offline.bringing import bring
from ml_postgres_optimization.interfaces.commands.offline.tune import tune_on
from ml_postgres_optimization.interfaces.reporter import Result, Table, json_text
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.interfaces.workbench.bench import open_workbench, require_consent
from ml_postgres_optimization.interfaces.workbench.ground import Ground, survey
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.workload import LEVELS, usable_cores, workload_named

LEDGER = "benchmark.jsonl"
# A start of the server takes about two.
_SWITCH_SECONDS = 2.0
_CALIBRATING_BLOCKS, _CAPACITY_RUNS = 2, 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison that is complete.

    Parameters
    ----------
    plan : ComparisonPlan
    terms : Terms
    levels : tuple of LevelSeen
    """

    plan: ComparisonPlan
    terms: Terms
    levels: tuple[LevelSeen, ...]

    @property
    def is_met(self) -> bool:
        """Whether every target is met."""
        return all(level.is_met for level in self.levels)


def benchmark(session: Session, *, dry_run: bool = False) -> Result:
    """Measure the specification's two tables on this server, and put back what was in force.

    Returns
    -------
    Result
        Exit code 1 where a target was not met, or not proven to be.

    Raises
    ------
    UsageError
        If load of ours is not allowed here, or there is nothing to compare with.
    GenesisError
        Of the kind that fits; what was in force at the start is in force then, and what was measured is kept.
    """
    load.require_permission(session)
    forecast = Forecast.of(session)
    plan = _plan(session, forecast)
    if dry_run:
        return _preview(session, plan, forecast)
    require_consent(session)
    folder = session.settings.output or session.home.logs
    require_writable(folder)
    load.ensure_tables(session)
    with session.sole_optimizer() as journal:
        ground = _ground(session)
        wanted = compared(session, ground) or _interrupted(session, ground, forecast)
        if wanted is None:
            ground, wanted = _tuned_first(session, journal)
        if session.lease is not None:
            session.lease.prepare()
        ledger = Ledger(_ledger_path(session), _request(session, ground, wanted, forecast))

        def guard(terms: Terms | None) -> Guard:
            return ground.guard(journal, longest_seconds=longest_seconds(plan, session.settings.table_scale, terms))

        stage = ServerStage(session, guard(ledger.terms), wanted, plan, forecast)
        done = _measured(session, stage, ground, ledger, guard)
    result = _told(session, done, forecast)
    ledger.close_as(folder / f"benchmark-{session.run}.jsonl")
    return result


def _plan(session: Session, forecast: Forecast) -> ComparisonPlan:
    settings = session.settings
    levels = tuple(level for name, level in LEVELS.items() if name in settings.levels)
    return ComparisonPlan(
        levels,
        settings.blocks,
        settings.block_seconds,
        settings.seed,
        with_ablation=not settings.skip_ablation,
        idle=frozenset({Part.PREVENTION} if forecast.idle_because else ()),
    )


def _ground(session: Session) -> Ground:
    """Survey the server as for a workload that nobody relies on: the embedded one may be restarted."""
    return survey(session, connections=plain_pool(session), is_offline=True)


def _request(session: Session, ground: Ground, wanted: Configurations, forecast: Forecast) -> dict[str, object]:
    """Return what makes blocks comparable: those of another request are not gone on with."""
    settings, machine = session.settings, session.target.machine
    return {
        "program": __version__,
        "server": session.target.capabilities.version,
        "database": session.target.capabilities.database,
        "cores": [usable_cores(), machine.cpus],
        "memory_bytes": machine.memory_limit_bytes,
        "max_connections": ground.settings["max_connections"].value,
        "levels": [name for name in LEVELS if name in settings.levels],
        "blocks": settings.blocks,
        "seconds": settings.block_seconds,
        "seed": settings.seed,
        "scale": settings.table_scale,
        "ablation": not settings.skip_ablation,
        "base": wanted.base.id,
        "optimised": wanted.optimised.id,
        "concurrency": wanted.concurrency,
        "prevention": None if forecast.idle_because else forecast.model_id,
    }


def _ledger_path(session: Session) -> Path:
    return session.home.of_server(session.server) / LEDGER


def _interrupted(session: Session, ground: Ground, forecast: Forecast) -> Configurations | None:
    """Return what an interrupted benchmark compares before which nothing was proven; None where there is none."""
    untuned = Configurations(ground.initial, stock_of(ground), ground.initial, None, "as it is, nothing being proven")
    is_there = Ledger.is_of(_ledger_path(session), _request(session, ground, untuned, forecast))
    return untuned if is_there else None


def _tuned_first(session: Session, journal: Journal) -> tuple[Ground, Configurations]:
    """Tune the embedded server for our own load, as `tune` does, and return what is compared then.

    Raises
    ------
    UsageError
        If the server is one of the user's, who may not want it tuned.
    """
    minutes = session.settings.tune_minutes
    if not session.embedded:
        raise UsageError(
            f"Nothing has been promoted on {session.connection.display}, and it is as initdb leaves it.",
            "Run genesis-pg tune or optimize there first, or name what to compare: --configuration FILE.",
        )
    session.reporter.say(f"Nothing has been promoted on this server yet: tuning it first, for {minutes:g} minutes.")
    observer = Observer(session)
    with observer.saving():
        workload = workload_named("genesis", level=session.settings.level, scale=session.settings.table_scale)
        brought = bring(session, workload)
        with open_workbench(session, journal, observer, brought.offer, is_offline=True) as workbench:
            tuned = tune_on(session, workbench, brought, 60.0 * minutes)
    ground = _ground(session)
    origin = f"tuned for {minutes:g} minutes beforehand"
    if not tuned.is_proven:
        session.reporter.say("Nothing was proven better: the optimised arm has the configuration of base.")
        origin += ", in which nothing was proven better"
    return ground, Configurations(ground.initial, stock_of(ground), ground.initial, None, origin)


def _measured(
    session: Session, stage: ServerStage, ground: Ground, ledger: Ledger, guard: Callable[[Terms | None], Guard]
) -> Comparison:
    """Find the terms, measure what is missing, and judge it."""
    if ledger.set_aside is not None:
        session.reporter.say(f"An unfinished benchmark of something else was put aside: {ledger.set_aside}")
    terms, plan = ledger.terms, stage.plan
    if terms is None:
        terms = stage.find_terms(ground)
        ledger.agree(terms)
        # now that somebody knows how long a block is
        stage.guard = guard(terms)
    elif ledger.blocks:
        session.reporter.say(f"Going on with an interrupted benchmark: {len(ledger.blocks)} blocks are there.")

    def on_block(cell: Cell, arm: Arm, share: float) -> None:
        session.reporter.progress("Measuring", share)
        session.log.info("block", round=cell.round, level=cell.level.name, arm=arm.name)

    run_comparison(plan, stage, ledger, terms, on_block=on_block)
    session.reporter.progress("Measuring", 1.0)
    names = [level.name for level in plan.levels]
    # a file may have more than was planned
    keys = [(cell.round, cell.level.name, arm.name) for cell in plan.cells() for arm in cell.arms]
    return Comparison(plan, terms, tuple(judged({key: ledger.blocks[key] for key in keys}, names, plan.arms)))


def _told(session: Session, done: Comparison, forecast: Forecast) -> Result:
    """Write the report as JSON and as a page, and show its tables."""
    tables = tables_of(done.levels, done.terms)
    story = [*story_of(done.levels, done.terms), *limits_told(done.terms), forecast.told]
    heading = f"genesis-pg benchmark, run {session.run}, on {session.connection.display}"
    document = document_of(done.levels, done.terms) | {"prevention": forecast.to_json()}
    page = comparison_page(done.levels, heading=heading, story=story, tables=tables, made_at=session.clock.now())
    folder = session.settings.output or session.home.logs
    files = write_artefacts(folder, f"benchmark-{session.run}", {"json": json_text(document), "html": page})
    document["files"] = {suffix: str(path) for suffix, path in files.items()}
    lines = [*story, *(f"Written: {path}" for path in files.values())]
    return Result(document, tables, lines, 0 if done.is_met else 1)


def _preview(session: Session, plan: ComparisonPlan, forecast: Forecast) -> Result:
    """Say what would be measured, how long that takes at least, and under which configurations."""
    ground = _ground(session)
    wanted = compared(session, ground)
    minutes = _least_seconds(session, plan, wanted) / 60
    base, optimised = wanted.differing(ground) if wanted else ({}, {})
    lines = [
        f"Would measure {plan.block_count} blocks of {plan.block_seconds:g} s after {plan.warm_up_seconds:g} s each: "
        f"{plan.rounds} of each arm ({', '.join(arm.name for arm in plan.arms)}) at each level, on tables made anew.",
        f"It would take about {minutes:,.0f} minutes, longer where a level's operations need longer blocks.",
        f"Optimised: {wanted.origin}." if wanted else "Optimised: to be found by tuning first.",
        forecast.told,
    ]
    rows = [(name, value, optimised[name]) for name, value in base.items()]
    orders = [
        (str(cell.round + 1), cell.level.name, ", ".join(arm.name for arm in cell.arms)) for cell in plan.cells()
    ]
    document = {"blocks": plan.block_count, "minutes": minutes, "base": base, "optimised": optimised}
    tables = [
        Table("Configurations", ("knob", "base", "optimised"), rows or [("no difference", "", "")]),
        Table("Order", ("round", "level", "arms"), orders),
    ]
    return Result(document, tables, lines)


def _least_seconds(session: Session, plan: ComparisonPlan, wanted: Configurations | None) -> float:
    renewal = RENEWAL_SECONDS_AT_SCALE_1 * session.settings.table_scale
    calibrations = _CALIBRATING_BLOCKS * sum(level.name in WANTED_ERROR_RATIOS for level in plan.levels)
    blocks = (plan.block_count + calibrations) * (plan.warm_up_seconds + plan.block_seconds + renewal)
    switches = 2 * _SWITCH_SECONDS * plan.rounds * len(plan.levels)
    tuning = 60.0 * session.settings.tune_minutes if wanted is None else 0.0
    return blocks + switches + tuning + _CAPACITY_RUNS * load.CAPACITY_SECONDS
