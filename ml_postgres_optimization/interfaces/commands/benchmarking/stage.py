"""The server on which a benchmark measures: who changes its configuration, and what base comes to on it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ml_postgres_optimization.comparison.arm import BASE, Arm, Part
from ml_postgres_optimization.comparison.measuring.block import (
    LONGEST_DRAIN_SECONDS,
    BlockPlan,
    Lookout,
    measure_block,
)
from ml_postgres_optimization.comparison.measuring.faulting import (
    LOCK_TIMEOUT,
    MOST_AT_ONCE,
    WANTED_ERROR_RATIOS,
    FaultRates,
    calibrated,
    first_guess,
)
from ml_postgres_optimization.comparison.measuring.figures import BlockFigures
from ml_postgres_optimization.comparison.plan import Cell, ComparisonPlan
from ml_postgres_optimization.comparison.terms import Terms
from ml_postgres_optimization.errors import ForeignChange, UsageError
from ml_postgres_optimization.interfaces.commands.benchmarking.configurations import Configurations
from ml_postgres_optimization.interfaces.commands.benchmarking.foretelling import (
    Forecast,
    ForecastLookout,
    look_seconds,
)
from ml_postgres_optimization.interfaces.commands.benchmarking.limits import with_limits
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.interfaces.workbench.ground import Ground
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change
from ml_postgres_optimization.knobs.rendering import same_value
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.workload import Level, LoadPlan, free_connections, measure_capacity, renew_tables
from ml_postgres_optimization.workload.faults import FaultGround

# Tables of scale 1 are made, vacuumed and written in about so long.
RENEWAL_SECONDS_AT_SCALE_1 = 4.0
# a change is put back by those who stand by when it takes that many times as long as planned, and so much more
_LONGEST_OF_PLAN, _LONGEST_MORE_SECONDS = 2.0, 600.0
# an odd number, so that the median is one of them
_CAPACITY_RUNS = 3


@dataclass(slots=True)
class ServerStage:
    """The session's server as `comparison.runner.Stage`.

    Parameters
    ----------
    session : Session
    guard : Guard
    compared : Configurations
    plan : ComparisonPlan
    forecast : Forecast
        Of errors, on which prevention acts.
    """

    session: Session
    guard: Guard
    compared: Configurations
    plan: ComparisonPlan
    forecast: Forecast
    _changes: int = 0

    @contextmanager
    def in_force(self, is_configured: bool) -> Iterator[None]:
        """Have one of the two configurations in force, by the guard; what was in force before comes back.

        Raises
        ------
        ChangeRefused, NotNow, TargetError, AlreadyRunning

        Notes
        -----
        What somebody else has changed meanwhile is left alone, and said.
        """
        wanted = self.compared.optimised if is_configured else self.compared.base
        if wanted == self.compared.initial:
            yield
            return
        self._changes += 1
        change = Change(self.compared.initial, wanted)
        guarded = self.guard.trial(change, f"{self.session.run}-benchmark-{self._changes}")
        try:
            with guarded:
                guarded.apply()
                yield
        finally:
            for name, text in guarded.foreign_changes.items():
                self.session.reporter.say(f"Somebody else has changed {name} meanwhile; it was left alone: {text}.")

    def require_in_force(self, is_configured: bool) -> None:
        """See that nobody has changed what is measured, and that the guard holds.

        Raises
        ------
        ForeignChange
            If the server runs under other settings than the arm has.
        AlreadyRunning, TargetError
        """
        self.guard.require_sole()
        self.guard.require_protection()
        wanted = self.compared.optimised if is_configured else self.compared.base
        for name, live in self.guard.actuator.settings(list(wanted)).items():
            if not same_value(wanted[name], live.value, live.kind):
                raise ForeignChange(
                    f"{name} was changed by somebody else during the benchmark: the server runs with {live.value}, "
                    f"the arm with {wanted[name]}. The block does not count.",
                    "See who changes settings here; then the same command goes on with this round.",
                )

    def measure(self, cell: Cell, arm: Arm, terms: Terms) -> BlockFigures:
        """Make the tables anew, and measure one block; raises what `renew_tables` and `measure_block` do."""
        return self._measure(cell.level, arm, terms, seed=cell.seed, faults=terms.faults_of(cell.level))

    def _measure(self, level: Level, arm: Arm, terms: Terms, *, seed: int, faults: FaultRates) -> BlockFigures:
        self.renew()
        rate = terms.rate_of(level)
        block = BlockPlan(
            level=level,
            arm=arm,
            seed=seed,
            rate_per_second=rate,
            connections=terms.configured_connections if arm.is_configured else terms.connections,
            fewest_connections=min(terms.connections, terms.configured_connections),
            warm_up_seconds=self.plan.warm_up_seconds,
            seconds=self.plan.seconds_of(level, rate),
            faults=faults,
            limit=terms.limit_of(level, is_configured=arm.is_configured),
        )
        self.require_in_force(arm.is_configured)
        figures = measure_block(self._dsn, block, self.session.clock, self._lookout(block))
        self.require_in_force(arm.is_configured)
        return figures

    def _lookout(self, block: BlockPlan) -> Lookout | None:
        """Return who looks ahead in a block; None where its arm has no prevention, or it can do nothing here."""
        if Part.PREVENTION not in block.arm.parts:
            return None
        in_force = self.compared.optimised if block.arm.is_configured else self.compared.base
        return ForecastLookout(
            self.session,
            self.forecast,
            in_force.replaced({CONCURRENCY: block.connections}),
            {"run": self.session.run, "level": block.level.name},
            look_seconds(self.session, block.warm_up_seconds + block.seconds),
        )

    def renew(self) -> None:
        """Make the tables anew, so that every block begins with the same rows."""
        renew_tables(self._dsn, self.session.settings.table_scale)

    def find_terms(self, ground: Ground) -> Terms:
        """Measure, on base, its capacity, and how often each fault makes it fail."""
        with self.in_force(False):
            self.renew()
            self.require_in_force(False)
            terms = with_limits(self.session, self.forecast, self._capacity(ground), self.compared, self.plan.levels)
            self.require_in_force(False)
            self.session.reporter.say(
                f"Base, a plain pool of {terms.connections} connections, does {terms.capacity_per_second:,.0f} "
                "operations/s in a closed loop."
            )
            if not may_strike(self._dsn):
                self.session.reporter.say("This server is not on this machine: no faults are injected.")
                return terms
            for level in self.plan.levels:
                if level.name in WANTED_ERROR_RATIOS:
                    terms = self._calibrate(level, terms)
        return terms

    def _capacity(self, ground: Ground) -> Terms:
        pool = plain_pool(self.session)
        plan = LoadPlan(
            self.plan.levels[-1].mix,
            connections=pool,
            clients=self.plan.levels[-1].clients,
            seed=self.plan.seed,
            session_settings={"lock_timeout": LOCK_TIMEOUT},
        )
        capacities = tuple(measure_capacity(self._dsn, plan, load.CAPACITY_SECONDS) for _ in range(_CAPACITY_RUNS))
        base, optimised = self.compared.differing(ground)
        return Terms(
            capacities_per_second=capacities,
            capacity_per_second=statistics.median(capacities),
            connections=pool,
            configured_connections=min(pool, self.compared.concurrency or pool),
            base=base,
            optimised=optimised,
            origin=self.compared.origin,
        )

    def _calibrate(self, level: Level, terms: Terms) -> Terms:
        """See what faults do to base, twice: the second time at the rates that the first one gave."""
        wanted, rate = WANTED_ERROR_RATIOS[level.name], terms.rate_of(level)
        rates, seen, ratio = first_guess(rate, wanted), BlockFigures(), 0.0
        for attempt in range(2):
            self.session.reporter.say(f"Calibrating the faults at {level.name} on base, {attempt + 1} of 2 …")
            block = self._measure(level, BASE, terms, seed=self.plan.seed + attempt, faults=rates)
            seen, ratio = seen + block, block.error_ratio
            rates = calibrated(seen, rate, wanted)
        return replace(
            terms,
            faults={**terms.faults, level.name: rates},
            calibrated_error_ratios={**terms.calibrated_error_ratios, level.name: ratio},
        )

    @property
    def _dsn(self) -> str:
        return self.session.connection.dsn_for_driver()


def longest_seconds(plan: ComparisonPlan, scale: float, terms: Terms | None) -> float:
    """Return how long one configuration may be in force at a stretch: the arms of two cells beside each other.

    Before there are terms nobody knows how fast base is, so that the slowest counts.
    """
    longest = max(plan.seconds_of(level, terms.rate_of(level) if terms else 1.0) for level in plan.levels)
    block = plan.warm_up_seconds + longest + LONGEST_DRAIN_SECONDS + RENEWAL_SECONDS_AT_SCALE_1 * scale
    return _LONGEST_OF_PLAN * 2 * len(plan.arms) * block + _LONGEST_MORE_SECONDS


def plain_pool(session: Session) -> int:
    """Return the connections of a plain pool: all that are free, less those for whoever looks and for the faults."""
    kept_free = load.CONNECTIONS_KEPT_FREE + MOST_AT_ONCE
    return max(1, free_connections(session.connection.dsn_for_driver()) - kept_free)


def may_strike(dsn: str) -> bool:
    """Tell whether faults may strike the load on a server: it says itself that it is on this machine."""
    try:
        return FaultGround(dsn).dsn == dsn
    except UsageError:
        return False
