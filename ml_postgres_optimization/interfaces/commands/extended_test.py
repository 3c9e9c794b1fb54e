"""``test``: the soak mix for a duration, judged by its criteria."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

from ml_postgres_optimization.errors import IntegrityViolated, Interrupted, StateError, UsageError
from ml_postgres_optimization.interfaces.commands.soaking.accounts import Accounts
from ml_postgres_optimization.interfaces.commands.soaking.beside.marks import ConfigurationMarks, marks_of
from ml_postgres_optimization.interfaces.commands.soaking.beside.optimizer import (
    optimizer_beside,
    require_optimizable,
    results_in,
    told_of,
)
from ml_postgres_optimization.interfaces.commands.soaking.disturbing import (
    Disturbable,
    DisturbedLoad,
    faults_of,
    require_ground,
    running_under,
)
from ml_postgres_optimization.interfaces.commands.soaking.plans import described, heard, planned
from ml_postgres_optimization.interfaces.commands.soaking.reports import judged_here, limits_of, outline_of
from ml_postgres_optimization.interfaces.commands.soaking.wishes import NOTHING_SAID, Wish
from ml_postgres_optimization.interfaces.report.soak.files import HTML
from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.forecasting import forecasts_table
from ml_postgres_optimization.interfaces.workbench.ground import promoted_concurrency
from ml_postgres_optimization.interfaces.workbench.load import ensure_tables, offered_with_ledger, require_permission
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.soak.interval import Event
from ml_postgres_optimization.soak.journal import (
    Begun,
    Ending,
    FollowedRun,
    KnownRun,
    Left,
    RunDescription,
    RunJournal,
    chosen_run,
    runs_in,
)
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.runner import SoakResult, run_soak
from ml_postgres_optimization.soak.running import Course, Gauges, Timeline, Watch, wait_for_turn
from ml_postgres_optimization.target.host import boot_name, own_resources
from ml_postgres_optimization.telemetry import Recorder, SystemClock
from ml_postgres_optimization.workload import SOAK_MIX, LoadPlan, tables_scale
from ml_postgres_optimization.workload.accounting import Ledger, QueryPlans

TellEvents = Callable[[], tuple[Event, ...]]


def run_test(session: Session, *, wish: Wish = NOTHING_SAID, dry_run: bool = False) -> Result:
    """Run the soak mix, or another, for the session's duration.

    Parameters
    ----------
    wish : Wish
        What is offered.
    dry_run : bool

    Returns
    -------
    Result
        Exit code 1 when a criterion was not met.

    Raises
    ------
    UsageError
        If load of ours, or one of the faults, is not allowed on this server.
    Interrupted
        After Ctrl-C; what was measured until then is in the report, and the run can be taken up again.
    """
    require_permission(session)
    limits_of(session.settings)  # what is wrong with them is said before the work
    require_ground(session, wish.faults)
    seconds, settings = session.settings.duration_seconds, session.settings
    rate_shape = wish.rate_shape(seconds, level=settings.level, seed=settings.seed)
    if wish.optimizes:
        require_optimizable(session, seconds)
    if dry_run:
        return _rehearsed(wish, seconds)
    for run in unfinished_runs(session):
        session.reporter.say(f"Run {run.name} is not finished: test --resume goes on with it, --abandon gives it up.")
    ensure_tables(session)
    offer = offered_with_ledger(session, wish.mix, rate_per_second=wish.rate_per_second)
    connections = promoted_concurrency(session) or offer.plan.connections
    plan = replace(offer.plan, connections=connections, rate_shape=rate_shape)
    return soak_on(session, plan, seconds, Observer(session, keeps_rows=False), wish=wish)


def _rehearsed(wish: Wish, seconds: float) -> Result:
    mix = "the soak mix" if wish.mix == SOAK_MIX else "a mix of your own"
    settings = "the optimiser works on it meanwhile" if wish.optimizes else "its configuration stays as it is"
    line = f"Would load this server with {mix} for {seconds:.0f} s; {settings}."
    told = [line, *([f"Faults beside it, on average: {wish.faults}."] if wish.faults.tables else [])]
    return Result({"would": " ".join(told)}, (), told)


def resume_test(session: Session, name: str | None, *, dry_run: bool = False) -> Result:
    """Go on with a run that was stopped or killed, from the interval after the last that it has recorded.

    Parameters
    ----------
    name : str or None
        Of the run, or how it begins; the last one that can go on where None.

    Raises
    ------
    UsageError
        If there is none, it is over, or it is another database's.
    AlreadyRunning
        If a runner is at it.
    JournalError
        If its journal cannot be read or used.
    """
    require_permission(session)
    run = chosen_run(runs_in(session.home.runs_of(session.server)), name, doing="resume")
    _check_resumable(session, run)
    require_ground(session, faults_of(run.description.load if run.description else {}))
    if dry_run:
        line = f"Would go on with run {run.name} after its interval {run.state.last_number}."
        return Result({"would": line}, (), [line])
    with RunJournal(run.folder) as journal:
        if journal.dropped_bytes or journal.damaged_bytes:
            session.reporter.say(
                f"The journal was mended: {journal.dropped_bytes} bytes of a torn record were cut off, and "
                f"{journal.damaged_bytes} bytes in it are damaged; their intervals are lost."
            )
        session.reporter.say(f"Going on with run {run.name} after its interval {journal.state.last_number}.")
        plan = planned(journal.description.load, journal.description.seed, journal.description.duration_seconds)
        _require_tables(session, journal.description)
        return _run_on(session, journal, plan, Observer(session, keeps_rows=False))


def _require_tables(session: Session, description: RunDescription) -> None:
    """See that the run's own tables are there still: made anew, they would know nothing of it.

    Raises
    ------
    UsageError
    """
    scale, found = description.load.get("scale"), tables_scale(session.connection.dsn_for_driver())
    if found != scale:
        raise UsageError(
            f"Run {description.run} is on tables of scale {scale}, and here they are of scale {found}.",
            "They were made anew since: abandon it (test --abandon), and start another.",
        )


def unfinished_runs(session: Session, *, by: str = "") -> list[KnownRun]:
    """Return the runs on this server that can go on, of one command where one is named; say which cannot be read."""
    known = runs_in(session.home.runs_of(session.server))
    for run in known:
        if run.trouble:
            session.reporter.say(f"Run {run.name} is passed over, finished or not: {run.trouble}")
    runs = [run for run in known if run.can_go_on and run.description]
    return [run for run in runs if run.description and by in {"", run.description.load.get("by")}]


def soak_on(
    session: Session,
    plan: LoadPlan,
    seconds: float,
    observer: Observer,
    *,
    by: str = "test",
    wish: Wish = NOTHING_SAID,
) -> Result:
    """Run `plan` for `seconds`, an interval at a time, each in the run's journal, and write the report.

    Raises
    ------
    StateError
        If the journal cannot be begun or ended.
    """
    limits, marks = limits_of(session.settings), marks_of(session, plan, observer)
    with observer.saving(), Ledger(session.connection.dsn_for_driver(), session.run) as ledger:
        plan = heard(plan, (session.run, ledger.take(0, is_new=True)), session.settings.window_seconds)
        accounts = Accounts(session, ledger, session.settings.table_scale, QueryPlans(ledger, plan.mix))
        with running_under(session, plan, wish.faults) as load:
            # the run begins with its load: what connecting took is no part of it
            clock = SystemClock()
            began_at = clock.now() - timedelta(seconds=clock.monotonic_seconds() - load.load.started_at_seconds)
            description = described(session, plan, seconds, began_at, by=by, wish=wish)
            with _journal_of(session, description) as journal:
                watch = _watch(plan, accounts, marks)
                result = _gone_through(session, journal, load, observer, watch, limits=limits)
    return _reported(session, journal, result, observer, limits)


def _check_resumable(session: Session, run: KnownRun) -> None:
    known = run.description
    if known is None:
        raise UsageError(
            f"Run {run.name} cannot be read: {run.trouble}", "Restore its journal, or start another run."
        )
    if not (run.can_go_on or run.is_running):
        raise UsageError(f"Run {run.name} is {run.status}.", "Start another one.")
    here = session.target.capabilities.database
    if (known.server, known.database) != (session.server, here):
        raise UsageError(
            f"Run {run.name} is of database {known.database} on server {known.server}, and this is {here} on "
            f"{session.server}.",
            f"Name that server: {known.display}.",
        )


def _journal_of(session: Session, description: RunDescription) -> RunJournal:
    """Begin a run's journal."""
    return RunJournal(session.home.runs_of(session.server) / description.run, description)


def _run_on(session: Session, journal: RunJournal, plan: LoadPlan, observer: Observer) -> Result:
    """Go through what is left of a run, as soon as an interval begins that nobody was in."""
    clock, run, limits = SystemClock(), journal.description.run, limits_of(session.settings, journal.description)
    marks = marks_of(session, plan, observer)
    with observer.saving(), Ledger(session.connection.dsn_for_driver(), run) as ledger:
        epoch = ledger.take(journal.state.epoch, is_new=False)
        scale = float(journal.description.load.get("scale", 1.0))
        accounts = Accounts(session, ledger, scale, QueryPlans(ledger, plan.mix))
        _take_over(session, journal, accounts, limits)
        timeline = Timeline(clock, journal.description, journal.state.mark, boot=boot_name())
        wait_for_turn(journal.state, timeline, clock)
        if timeline.number >= journal.description.intervals_total:
            lost = _lost(range(journal.state.last_number + 1, journal.state.lost_until + 1))
            session.reporter.say(f"The time of run {run} is over; its load does not begin again.{lost}")
            total, lost_until = journal.description.intervals_total, journal.state.lost_until
            _write(journal, Begun(epoch, clock.now(), total, lost_until))  # says what became of the one before
            _write(journal, Left(Ending.FINISHED, clock.now(), "The run's time was over.", is_settled=True))
            return _reported(session, journal, SoakResult.of(journal.state), observer, limits)
        start_seconds = clock.monotonic_seconds() - timeline.elapsed_seconds
        plan = replace(plan, schedule_start_seconds=start_seconds)
        plan = heard(plan, (run, epoch), journal.description.interval_seconds)
        with running_under(session, plan, faults_of(journal.description.load)) as load:
            watch = _watch(plan, accounts, marks)
            result = _gone_through(session, journal, load, observer, watch, limits=limits)
    return _reported(session, journal, result, observer, limits)


def _take_over(session: Session, journal: RunJournal, accounts: Accounts, limits: Limits) -> None:
    """Check what the last runner has left behind; where that does not balance, the run ends here.

    Raises
    ------
    IntegrityViolated
        The journal says so, and the report is written.
    ServerUnreachable, TargetError
    """
    try:
        accounts.take_over(journal.state)
    except IntegrityViolated as error:
        try:
            journal.append(Left(Ending.VIOLATED, SystemClock().now(), error.what))
        except OSError as failure:
            error.add_note(_unwritable(journal.description.run, failure).what)
        judged_here(session, journal.directory, limits)
        raise


def _watch(plan: LoadPlan, accounts: Accounts, marks: ConfigurationMarks) -> Watch:
    return Watch(
        marks.configuration_id,
        events=_all(accounts.events, marks.events),
        review=accounts.review,
        settle=accounts.settle,
        reads=plan.mix.read_only,
    )


def _gone_through(
    session: Session,
    journal: RunJournal,
    running: Disturbable,
    observer: Observer,
    watch: Watch,
    *,
    limits: Limits,
) -> SoakResult:
    """Record what is left of a run while its load runs.

    Raises
    ------
    StateError
        If the journal cannot be written.
    IntegrityViolated
        If the ledger of operations does not balance; the report is written then, too.
    """
    clock, load = SystemClock(), running.load
    timeline = Timeline(clock, journal.description, journal.state.mark, boot=boot_name())
    disturbed = DisturbedLoad(running, journal.description, timeline, clock)
    recorder = Recorder(
        session.target, clock, samples=load.samples, subscribers=[observer], unbroken=deferred_signals
    )
    epoch = load.plan.ledger[1] if load.plan.ledger else None
    beside = optimizer_beside(session, journal, timeline, epoch or journal.state.epoch + 1)
    gauges = Gauges(clock, lambda: own_resources(load.process_ids), session.target.stock)
    tellers = (watch.events, disturbed.events, gauges.events, *([beside.events] if beside else []))
    watch = replace(watch, resources=gauges, events=_all(*tellers))
    course = Course(journal, recorder, timeline, clock, watch=watch, load=disturbed, epoch=epoch)
    try:
        earlier = FollowedRun(journal.directory, is_recent=True)
        watching = session.reporter.watching(outline_of(earlier.description), earlier.news(), earlier.so_far)
        with disturbed, beside or nullcontext(), gauges, watching as show:
            return run_soak(journal, course, on_interval=lambda interval, _share: show(interval))
    except IntegrityViolated:
        judged_here(session, journal.directory, limits)
        raise
    except OSError as error:
        raise _unwritable(journal.description.run, error, course.unwritten) from error


def _write(journal: RunJournal, entry: Begun | Left) -> None:
    try:
        journal.append(entry)
    except OSError as error:
        raise _unwritable(journal.description.run, error) from error


def _unwritable(run: str, error: OSError, unwritten: range = range(0)) -> StateError:
    return StateError(
        f"The journal of run {run} cannot be written: {error.strerror or error}.{_lost(unwritten)}",
        "Make room on that disk, then: genesis-pg test --resume.",
    )


def _lost(unwritten: range) -> str:
    if not unwritten:
        return ""
    return f" Intervals {unwritten[0]:,} to {unwritten[-1]:,} were in memory only, and are lost."


def _all(*parts: TellEvents) -> TellEvents:
    return lambda: tuple(event for tell in parts for event in tell())


def _reported(
    session: Session, journal: RunJournal, result: SoakResult, observer: Observer, limits: Limits
) -> Result:
    """Judge the run, and write its report.

    Raises
    ------
    Interrupted
        If the runner was stopped.
    """
    run, csv = journal.description.run, observer.write_csv()
    report = judged_here(session, journal.directory, limits)
    if result.interrupted:
        raise Interrupted(
            f"Interrupted after {result.windows_total} windows; what was measured is in "
            f"{report.paths.get(HTML, 'the repository')}.",
            f"genesis-pg test --resume {run} goes on with it.",
        )
    told, beside = report.result(), results_in(journal.directory)
    document = {
        **told.document,
        "runners_total": journal.state.epoch,
        "windows_total": result.windows_total,
        "lost_windows_total": result.lost_windows_total,
        "clients_died_total": result.clients_died_total,
        "client_cpu_ratio": result.client_cpu_ratio,
        "doubts": list(result.doubts),
        "csv": str(csv or ""),
        **({"optimizers": beside} if beside else {}),
    }
    lines = [*client_lines(result), *told_of(beside), *told.lines, *([f"Windows as CSV: {csv}"] if csv else [])]
    tables = [*told.tables, forecasts_table(observer.prediction_scores())]
    return Result(document, tables, lines, told.exit_code)


def client_lines(result: SoakResult) -> list[str]:
    """Return lines that say whether the load's own processes were fit to measure."""
    died, cpu_ratio = result.clients_died_total, result.client_cpu_ratio
    return [
        f"Client processes: {died} died, the busiest used {cpu_ratio:.0%} of a core.",
        *(f"Warning: {doubt}" for doubt in result.doubts),
    ]
