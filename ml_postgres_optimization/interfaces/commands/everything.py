"""``--mode all``: set up, simulate, learn, optimise, test, and say what it brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ml_postgres_optimization.errors import PrivilegeMissing, TargetError, UsageError
from ml_postgres_optimization.interfaces.commands.extended_test import resume_test, soak_on, unfinished_runs
from ml_postgres_optimization.interfaces.commands.installation import set_up
from ml_postgres_optimization.interfaces.commands.learning import run_script, run_simulation
from ml_postgres_optimization.interfaces.commands.online.advice import restart_tables
from ml_postgres_optimization.interfaces.commands.online.optimization import optimize_on, require_long_windows
from ml_postgres_optimization.interfaces.commands.soaking.beside.optimizer import require_optimizable
from ml_postgres_optimization.interfaces.commands.soaking.reports import limits_of
from ml_postgres_optimization.interfaces.commands.soaking.wishes import Wish
from ml_postgres_optimization.interfaces.reporter import Result, json_text
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import (
    changed_table,
    ledger_json,
    measured_table,
    slower_tables,
    trials_table,
)
from ml_postgres_optimization.interfaces.workbench.bench import open_workbench, own_load, require_consent
from ml_postgres_optimization.interfaces.workbench.ground import Ground
from ml_postgres_optimization.interfaces.workbench.learned import Lesson, lesson_json, lessons_table, train_all
from ml_postgres_optimization.interfaces.workbench.load import offered_with_ledger, require_permission
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.tuning.ledger import Ledger
from ml_postgres_optimization.workload import SOAK_MIX

# Optimising needs pairs of blocks, testing only windows: three quarters of the time and one quarter.
OPTIMIZE_SHARE = 3 / 4
# The simulation is not part of the duration: a tenth of it, and long enough for the forests' least number of windows.
SIMULATE_SHARE = 0.1
SIMULATE_SECONDS = (95.0, 1800.0)
BY = "all"


@dataclass(frozen=True, slots=True)
class _Shares:
    """How the time is shared."""

    simulate_seconds: float
    optimize_seconds: float
    test_seconds: float

    @classmethod
    def of(cls, duration_seconds: float) -> _Shares:
        shortest, longest = SIMULATE_SECONDS
        return cls(
            min(longest, max(shortest, duration_seconds * SIMULATE_SHARE)),
            duration_seconds * OPTIMIZE_SHARE,
            duration_seconds * (1 - OPTIMIZE_SHARE),
        )

    def __str__(self) -> str:
        return (
            f"Of {self.optimize_seconds + self.test_seconds:.0f} s, {self.optimize_seconds:.0f} s are for optimising "
            f"and {self.test_seconds:.0f} s for testing; {self.simulate_seconds:.0f} s of simulation come before."
        )


def run_all(session: Session, *, dry_run: bool = False) -> Result:
    """Do everything on one server, one after the other.

    Returns
    -------
    Result
        Exit code 1 when the test did not meet its criteria.

    Raises
    ------
    GenesisError
        Of the kind that fits; the proven configuration is in force then, or will be at the next start.
    """
    require_permission(session)
    limits_of(session.settings)
    shares = _Shares.of(session.settings.duration_seconds)
    session.reporter.say(str(shares))
    prepared = set_up(session, dry_run=dry_run)
    if dry_run:
        return prepared
    _require_consent(session, shares)
    if unfinished := unfinished_runs(session, by=BY):
        session.reporter.say(
            "The test of an earlier run was not finished; optimising is not begun anew before it is."
        )
        return resume_test(session, unfinished[-1].name)
    for line in prepared.lines:
        session.reporter.say(line)
    observer = Observer(session)
    with session.sole_optimizer() as journal, observer.saving():
        offer = own_load(session)
        run_script(session, shares.simulate_seconds)
        with open_workbench(session, journal, observer, offer) as workbench:
            run_simulation(session, workbench, shares.simulate_seconds)
        lessons = train_all(session)
        observer.learn_anew()
        with open_workbench(session, journal, observer, offer) as workbench:
            ledger = optimize_on(session, workbench, shares.optimize_seconds)
    csv = observer.write_csv()
    soak = _tested(session, ledger, shares.test_seconds)
    return _summary(session, workbench.ground, ledger, lessons, soak, csv=csv)


def _require_consent(session: Session, shares: _Shares) -> None:
    """See that the owner lets the server be changed, now and for long enough, before anything is loaded there."""
    require_consent(session)
    require_long_windows(session, shares.optimize_seconds)


def _tested(session: Session, ledger: Ledger, seconds: float) -> Result:
    """Test what was found, with the optimiser beside it."""
    offer = offered_with_ledger(session, SOAK_MIX)
    connections = int(ledger.incumbent.get(CONCURRENCY, offer.plan.connections))
    plan = replace(offer.plan, connections=connections)
    wish = Wish(optimizes=_may_optimize_beside(session, seconds))
    return soak_on(session, plan, seconds, Observer(session, keeps_rows=False), by=BY, wish=wish)


def _may_optimize_beside(session: Session, seconds: float) -> bool:
    """Tell whether the optimiser goes on beside the test; where not, say why: the test is made all the same."""
    try:
        require_optimizable(session, seconds)
    except (UsageError, PrivilegeMissing, TargetError) as error:
        session.reporter.say(f"The test has no optimiser beside it. {error.what}")
        return False
    return True


def _summary(
    session: Session,
    ground: Ground,
    ledger: Ledger,
    lessons: Sequence[Lesson],
    soak: Result,
    *,
    csv: Path | None,
) -> Result:
    """Put everything into one report; what matters most comes last, where a terminal still shows it."""
    report = session.home.logs / f"report-{session.run}.json"
    document = {
        "server": session.connection.display,
        "learned": [lesson_json(lesson) for lesson in lessons],
        "optimized": ledger_json(ledger),
        "tested": soak.document,
        "csv": str(csv or ""),
        "report": str(report),
    }
    session.write_result(report.name, lambda path: path.write_text(json_text(document), encoding="utf-8"))
    tables = [
        lessons_table(lessons),
        *soak.tables,
        trials_table(ledger, ground.catalogue),
        *slower_tables(ledger),
        *restart_tables(ground),
        changed_table(ledger, ground.catalogue),
        measured_table(ledger),
    ]
    lines = [
        *soak.lines,
        *([f"Windows as CSV: {csv}"] if csv else []),
        f"Logs: {session.home.logs / 'genesis-pg.jsonl'}",
    ]
    return Result(document, tables, lines, soak.exit_code)
