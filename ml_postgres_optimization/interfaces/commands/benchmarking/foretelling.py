"""Prevention in a benchmark: what the trained error forest can do, and who looks ahead while a block runs."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.learned import load_forest
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import stream_observations
from ml_postgres_optimization.telemetry import Recorder, Window
from ml_postgres_optimization.telemetry.recorder import SampleSource
from ml_postgres_optimization.tuning.preventing import LIMITED_CLASSES, Foresight, Hold, trusted_by
from ml_postgres_optimization.workload import LoadGenerator

# of windows that are kept, to see how long those are that a forest has learnt from
_RECENT_WINDOWS = 200
# so that a danger can rise, last and pass within a block
_LOOKS_IN_A_BLOCK = 8
# the load is reported so often
_SHORTEST_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Forecast:
    """The error forest of the session's server, as far as a client's lever can act on it.

    Parameters
    ----------
    model : ErrorForest or None
    model_id : str
    idle_because : str
        Why nothing is prevented here; empty where something may be.
    """

    model: ErrorForest | None = None
    model_id: str = ""
    idle_because: str = ""

    @classmethod
    def of(cls, session: Session) -> Forecast:
        """Return what was learnt on the server so far."""
        loaded = load_forest(session, ErrorForest)
        if loaded is None:
            return cls(idle_because="no error forest was trained on this server (genesis-pg train)")
        if not trusted_by(loaded.model) & set(LIMITED_CLASSES):
            names = ", ".join(LIMITED_CLASSES)
            why = f"its error forest foretells none of {names} better than the naive forecast"
            return cls(loaded.model, loaded.path.stem, why)
        return cls(loaded.model, loaded.path.stem)

    @property
    def told(self) -> str:
        """What the user is told."""
        if self.idle_because:
            return f"Prevention is not measured: {self.idle_because}."
        return (
            f"Prevention holds our own load below what {self.model_id} finds without danger; it changes no setting."
        )

    def to_json(self) -> dict[str, object]:
        """Return what may be prevented, and by which model."""
        return {
            "model": self.model_id or None,
            "is_measured": not self.idle_because,
            "idle_because": self.idle_because,
        }


def look_seconds(session: Session, block_seconds: float) -> float:
    """Return how often to look ahead in a block of so many seconds: as in the windows learnt from, where it can."""
    lengths = [window.duration_seconds for window in session.repository().windows(last=_RECENT_WINDOWS)]
    learnt = statistics.median(lengths) if lengths else session.settings.window_seconds
    return max(_SHORTEST_LOOK_SECONDS, min(learnt, block_seconds / _LOOKS_IN_A_BLOCK))


class ForecastLookout:
    """Record windows beside a block, ask the error forest after each, and hold the load while it warns.

    Parameters
    ----------
    session : Session
    forecast : Forecast
    configuration : Configuration
        In force in the block, with the connections of its pool.
    labels : mapping of str to str
        ``run`` and ``level`` of the windows.
    look_seconds : float
    """

    def __init__(
        self,
        session: Session,
        forecast: Forecast,
        configuration: Configuration,
        labels: Mapping[str, str],
        look_seconds: float,
    ) -> None:
        self._session, self._forecast = session, forecast
        self._configuration, self._labels = configuration, labels
        self._look_seconds = look_seconds
        self._hold = Hold()
        self._load: LoadGenerator | None = None
        self._recorder: Recorder | None = None
        self._windows: deque[Window] = deque(maxlen=2)
        self._next_look_seconds = self._held_since_seconds = 0.0
        self.held_total = 0
        self.held_seconds = 0.0

    def begin(self, load: LoadGenerator, samples: SampleSource) -> None:
        """Take the load of a block that has just begun, and where what it has done is told."""
        self._load = load
        self._recorder = Recorder(self._session.target, self._session.clock, samples=samples)
        self._recorder.begin()
        self._next_look_seconds = self._session.clock.monotonic_seconds() + self._look_seconds

    def pass_until(self, until_seconds: float) -> None:
        """Look ahead, time and again, until a monotonic time."""
        clock = self._session.clock
        while self._load is not None and self._recorder is not None and self._next_look_seconds <= until_seconds:
            configuration = self._configuration
            if self._hold.ceiling is not None:
                configuration = configuration.replaced({CONCURRENCY: self._hold.ceiling})
            window = self._recorder.record_until(
                self._next_look_seconds, configuration_id=configuration.id, labels=self._labels
            )
            # who is late looks later, and not twice
            least_seconds = clock.monotonic_seconds() + self._look_seconds / 2
            self._next_look_seconds = max(self._next_look_seconds + self._look_seconds, least_seconds)
            self._see(window, configuration, self._load)
        clock.sleep(max(0.0, until_seconds - clock.monotonic_seconds()))

    def end(self) -> None:
        """Let the load go."""
        if self._hold.ceiling is not None and self._load is not None:
            self._load.hold_below(None)
            self._count()
        self._load = None

    def _see(self, window: Window, configuration: Configuration, load: LoadGenerator) -> None:
        if self._forecast.model is None:
            return
        self._windows.append(window)
        # as many run at once as the limiter lets, whatever the pool has: danger is asked for at that number
        allowed = int(configuration[CONCURRENCY])
        now = min(allowed, load.concurrency_limit or allowed)
        in_force = configuration.replaced({CONCURRENCY: now})
        known = {one.configuration_id: in_force for one in self._windows}
        *_, observation = stream_observations(list(self._windows), known)
        before = self._hold.ceiling
        foresight = Foresight(self._forecast.model, self._forecast.model_id, observation)
        ceiling = self._hold.see(foresight, now=now)
        if ceiling == before:
            return
        load.hold_below(ceiling)
        if before is None:
            self.held_total += 1
            self._held_since_seconds = self._session.clock.monotonic_seconds()
        else:
            self._count()

    def _count(self) -> None:
        self.held_seconds += self._session.clock.monotonic_seconds() - self._held_since_seconds
