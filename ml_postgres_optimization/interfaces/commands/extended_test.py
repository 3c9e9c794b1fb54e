"""``test``: the soak mix for a duration, judged by its criteria."""

from __future__ import annotations

from dataclasses import replace

from ml_postgres_optimization.errors import Interrupted
from ml_postgres_optimization.interfaces.reporter import Result, Table, json_text, milliseconds
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.forecasting import forecasts_table
from ml_postgres_optimization.interfaces.workbench.ground import promoted_concurrency, survey
from ml_postgres_optimization.interfaces.workbench.load import ensure_tables, offered, require_permission, running
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.soak.criteria import Criteria, Criterion
from ml_postgres_optimization.soak.report import soak_json
from ml_postgres_optimization.soak.runner import SoakPlan, SoakResult, run_soak
from ml_postgres_optimization.telemetry import Recorder, Window
from ml_postgres_optimization.workload import SOAK_MIX, LoadPlan


def run_test(session: Session, *, dry_run: bool = False) -> Result:
    """Run the soak mix for the session's duration.

    Returns
    -------
    Result
        Exit code 1 when a criterion was not met.

    Raises
    ------
    UsageError
        If load of ours is not allowed on this server.
    Interrupted
        After Ctrl-C; what was measured until then is in the report.
    """
    require_permission(session)
    seconds = session.settings.duration_seconds
    if dry_run:
        line = f"Would load this server with the soak mix for {seconds:.0f} s; its configuration stays as it is."
        return Result({"would": line}, (), [line])
    ensure_tables(session)
    offer = offered(session, SOAK_MIX)
    plan = replace(offer.plan, connections=promoted_concurrency(session) or offer.plan.connections)
    return soak_on(session, plan, seconds, Observer(session))


def soak_on(session: Session, plan: LoadPlan, seconds: float, observer: Observer) -> Result:
    """Run `plan` for `seconds`, a window at a time, and write the report."""
    settings = session.settings
    configuration = replace(survey(session, connections=plan.connections), concurrency=plan.connections).initial
    observer.know(configuration, "in force")
    soak_plan = SoakPlan(
        seconds,
        window_seconds=settings.window_seconds,
        criteria=Criteria(settings.minimum_success_ratio, settings.maximum_mean_milliseconds / 1000),
        labels={"run": session.run, "level": settings.level, "phase": "test"},
    )

    def on_window(_window: Window, share: float) -> None:
        session.reporter.progress("Testing", share)

    with observer.saving(), running(session, plan) as load:
        result = run_soak(
            Recorder(session.target, session.clock, samples=load.samples, subscribers=[observer]),
            soak_plan,
            configuration_id=configuration.id,
            clock=session.clock,
            on_window=on_window,
            load=load,
        )
    return _reported(session, result, observer)


def _reported(session: Session, result: SoakResult, observer: Observer) -> Result:
    document = soak_json(result)
    text = json_text(document)
    report = session.write_result(f"report-{session.run}.json", lambda path: path.write_text(text, encoding="utf-8"))
    csv = observer.write_csv()
    if result.interrupted:
        where = report or "the repository"
        raise Interrupted(
            f"Interrupted after {result.windows_total} windows; what was measured is in {where}.",
            "The same command starts a new test.",
        )
    files = {"Report": report, "Windows as CSV": csv}
    lines = [*client_lines(result), *(f"{what}: {path}" for what, path in files.items() if path)]
    exit_code = 0 if result.met else 1
    tables = [*soak_tables(result), forecasts_table(observer.prediction_scores())]
    return Result(document | {"csv": str(csv or ""), "report": str(report or "")}, tables, lines, exit_code)


def client_lines(result: SoakResult) -> list[str]:
    """Return lines that say whether the load's own processes were fit to measure."""
    died, cpu_ratio = result.clients_died_total, result.client_cpu_ratio
    return [
        f"Client processes: {died} died, the busiest used {cpu_ratio:.0%} of a core.",
        *(f"Warning: {doubt}" for doubt in result.doubts),
    ]


def soak_tables(result: SoakResult) -> list[Table]:
    """Return criteria, latencies by kind, and errors by SQLSTATE."""
    tables = [
        Table("Criteria", ("criterion", "found", "limit", ""), [_criterion_row(one) for one in result.criteria])
    ]
    if result.whole is not None:
        tables.append(_latencies(result.whole))
        errors = [(sqlstate, str(count)) for sqlstate, count in sorted(result.whole.errors.items())]
        tables.append(Table("Errors", ("SQLSTATE", "operations"), errors or [("none", "0")]))
    return tables


def _criterion_row(criterion: Criterion) -> tuple[str, str, str, str]:
    def shown(value: float) -> str:
        return milliseconds(value) if criterion.unit == "seconds" else f"{value:.3%}"

    return criterion.name, shown(criterion.found), shown(criterion.limit), "met" if criterion.met else "NOT MET"


def _latencies(whole: Window) -> Table:
    columns = ("ms", "count", "mean", "p50", "p95", "p99", "p99.9", "failed")
    kinds = {"all": whole.response, **{kind: operation.response for kind, operation in whole.operations.items()}}
    rows = []
    for kind, histogram in kinds.items():
        if not histogram.total:
            continue
        failed = whole.failed_total if kind == "all" else whole.operations[kind].failed_total
        quantiles = (histogram.quantile_seconds(quantile) for quantile in (0.5, 0.95, 0.99, 0.999))
        figures = (f"{seconds * 1000:,.2f}" for seconds in (histogram.mean_seconds, *quantiles))
        rows.append((kind, f"{histogram.total:,}", *figures, str(failed)))
    title = f"Response from the intended start, {whole.throughput_per_second:,.0f} operations/s"
    return Table(title, columns, rows)
