"""Run the soak, an interval at a time, and say how it stands when its runner leaves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ml_postgres_optimization.errors import IntegrityViolated
from ml_postgres_optimization.soak.interval import Interval
from ml_postgres_optimization.soak.journal import Ending, RunJournal, RunState
from ml_postgres_optimization.soak.running import Course
from ml_postgres_optimization.telemetry import Window

# "Running large tests", k6's documentation: keep the generator's CPU below 80 %, else its latencies are doubtful.
BELIEVABLE_CPU_RATIO = 0.8


@dataclass(frozen=True, slots=True)
class SoakResult:
    """How a run stands when its runner leaves it; whether it held what it must is `judging`'s to say.

    Parameters
    ----------
    whole : Window or None
        All windows merged, with what the load handed over after its end; None when nothing was seen.
    windows_total, lost_windows_total : int
        Windows of a server that was there, and intervals in which it was away; such a one has no rates, and its
        operations count.
    interrupted : bool
        Whether it was stopped before its time.
    clients_died_total : int
        Client processes that died; the windows in which they did are void.
    client_cpu_ratio : float
        The largest share of a core that a client process used in a window.
    """

    whole: Window | None
    windows_total: int
    lost_windows_total: int
    interrupted: bool = False
    clients_died_total: int = 0
    client_cpu_ratio: float = 0.0

    @classmethod
    def of(cls, state: RunState) -> SoakResult:
        """Say what a run has recorded so far."""
        return cls(
            whole=state.whole,
            windows_total=state.windows_total,
            lost_windows_total=state.server_down_total,
            interrupted=state.ending is Ending.STOPPED,
            clients_died_total=state.died_total,
            client_cpu_ratio=state.client_cpu_ratio,
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against believing the figures, a sentence each."""
        doubts = []
        if self.clients_died_total:
            doubts.append(f"Client processes died: {self.clients_died_total}; what they had not reported is lost.")
        if self.client_cpu_ratio > BELIEVABLE_CPU_RATIO:
            doubts.append(
                f"A client process used {self.client_cpu_ratio:.0%} of a core; above {BELIEVABLE_CPU_RATIO:.0%} it "
                "may itself be what is slow: doubt the response times."
            )
        return tuple(doubts)


def run_soak(journal: RunJournal, course: Course, *, on_interval: Callable[[Interval, float], None]) -> SoakResult:
    """Go through what is left of a run, and stop its load.

    What is due and unanswered at the end is taken from the load once it has stopped: as failed where it was running,
    as skipped where it had not begun.

    Parameters
    ----------
    journal : RunJournal
        Where `course` writes.
    on_interval : callable
        Receives each interval and the share of the duration that is over (0 to 1).

    Raises
    ------
    GenesisError
        What the course's watch raises; then the journal ends as if the runner had been killed.
    OSError
        If the journal can be neither begun nor ended.
    """
    try:
        ending = course.run(on_interval)
    except IntegrityViolated as error:
        try:
            course.leave(Ending.VIOLATED, error.what)
        except OSError as failure:  # what was found counts for more
            error.add_note(f"The journal could not be written: {failure.strerror or failure}.")
        raise
    course.leave(ending, "The run was stopped." if ending is Ending.STOPPED else "")
    return SoakResult.of(journal.state)
