"""``simulate`` and ``train``: make data that can teach, and learn from them."""

from __future__ import annotations

from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.bench import Workbench, open_workbench, own_load, require_consent
from ml_postgres_optimization.interfaces.workbench.learned import lesson_json, lessons_table, train_all
from ml_postgres_optimization.interfaces.workbench.load import require_permission
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.target.postgres.connection import connect
from ml_postgres_optimization.target.postgres.simulation import SimulationPlan as ScriptPlan
from ml_postgres_optimization.target.postgres.simulation import simulate_load
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.search import SearchSpace
from ml_postgres_optimization.tuning.simulation import PAUSE_SECONDS, SETTLE_SECONDS, SimulationPlan
from ml_postgres_optimization.tuning.simulation import simulate as run_design

_SCRIPT_OPERATIONS = (500, 20_000)
_SCRIPT_OPERATIONS_PER_SECOND = 10
# Many short windows teach more than few long ones: a forest learns from 60 at least (`models.knob_forest`).
_WINDOW_SECONDS = (0.75, 10.0)
_WINDOWS_IN_THE_TIME = 400
_SCENES = 6
_WINDOWS_PER_SCENE = 3


def simulate(session: Session, *, dry_run: bool = False) -> Result:
    """Run the script in the database, then a randomised design of knobs, concurrency, mix and level.

    Returns
    -------
    Result
        How many windows were made.
    """
    require_permission(session)
    seconds = session.settings.duration_seconds
    if dry_run:
        lines = [
            f"Would make our own tables at scale {session.settings.table_scale:g}, load this server for "
            f"{seconds:.0f} s,",
            "change reload-scope knobs by ALTER SYSTEM between windows, and put them back at the end.",
        ]
        return Result({"would": lines}, (), lines)
    require_consent(session)
    _design(session, seconds, capacity_per_second=1.0)  # too short a time is refused before anything is done
    observer = Observer(session)
    with session.sole_optimizer() as journal, observer.saving():
        offer = own_load(session)
        script = run_script(session, seconds)
        with open_workbench(session, journal, observer, offer) as workbench:
            made = run_simulation(session, workbench, seconds)
    csv = observer.write_csv()
    lines = [f"Windows as CSV: {csv}", "Learn from them: genesis-pg train"]
    return Result({"windows": made, "script_operations": script, "csv": str(csv)}, (), lines)


def run_script(session: Session, seconds: float) -> int:
    """Run ``simulate_load.sql``'s operations in one session of the repository; return how many were done.

    Each is a transaction of its own, so that their number grows with the time, and stays within limits that take
    seconds to minutes.
    """
    fewest, most = _SCRIPT_OPERATIONS
    operations = int(min(most, max(fewest, seconds * _SCRIPT_OPERATIONS_PER_SECOND)))
    plan = ScriptPlan(operations=operations, seed=session.settings.seed, labels={"run": session.run})
    with connect(session.repository_connection, purpose="simulation", statement_timeout_seconds=0) as connection:
        simulate_load(connection, plan, progress=session.log.info)
    session.reporter.say(f"simulate_load.sql did {operations:,} operations of a simulated day.")
    return operations


def _design(session: Session, seconds: float, capacity_per_second: float) -> SimulationPlan:
    shortest, longest = _WINDOW_SECONDS
    window_seconds = min(longest, max(shortest, seconds / _WINDOWS_IN_THE_TIME))
    scene_seconds = _WINDOWS_PER_SCENE * window_seconds + 2 * PAUSE_SECONDS
    return SimulationPlan(
        seconds,
        capacity_per_second,
        session.settings.seed,
        window_seconds=window_seconds,
        scenes=max(1, min(_SCENES, int((seconds - SETTLE_SECONDS) / scene_seconds))),
        windows_per_scene=_WINDOWS_PER_SCENE,
    )


def run_simulation(session: Session, workbench: Workbench, seconds: float) -> int:
    """Run the randomised design for `seconds` on a running load, and return how many windows it made."""
    if workbench.offer is None or workbench.load is None:
        return 0
    plan = _design(session, seconds, workbench.offer.capacity_per_second)
    started = session.clock.monotonic_seconds()
    visited: set[Configuration] = set()

    def on_window(configuration: Configuration, _window: Window) -> None:
        visited.add(configuration.replaced({CONCURRENCY: 0}))
        workbench.observer.know(configuration, "simulation")
        session.reporter.progress("Simulating", min(1.0, (session.clock.monotonic_seconds() - started) / seconds))

    made = run_design(
        workbench.laboratory,
        workbench.load,
        SearchSpace.of(workbench.ground.catalogue),
        workbench.ground.initial,
        plan,
        on_window=on_window,
    )
    session.reporter.say(f"The simulation made {made} windows in {len(visited)} configurations of the server.")
    return made


def train(session: Session) -> Result:
    """Fit the forests to all recorded windows.

    Returns
    -------
    Result
        Exit code 1 when there was too little to learn any of them from.
    """
    lessons = train_all(session)
    document = {"forests": [lesson_json(lesson) for lesson in lessons]}
    return Result(document, [lessons_table(lessons)], exit_code=0 if any(lesson.trained for lesson in lessons) else 1)
