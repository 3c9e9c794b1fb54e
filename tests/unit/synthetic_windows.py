"""Windows of a made-up server whose law is known: queueing over a noisy service time, errors that follow the load."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.features import observations
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, Window

START = datetime(2026, 3, 1, tzinfo=UTC)
MIX = {"read": 0.45, "write": 0.30, "update": 0.15, "transaction": 0.05, "delete": 0.05}
STOCK = Configuration(
    {"work_mem": 4096, "jit": True, "wal_compression": "off", CONCURRENCY: 16, "random_page_cost": 4.0}
)
_SAMPLES = 200


def operation(mean_seconds: float, service_seconds: float, rng: np.random.Generator, count: int) -> OperationWindow:
    """Return `count` operations whose times are lognormal around these means."""
    shape = rng.lognormal(-0.125, 0.5, max(1, count))
    shape /= shape.mean()
    return OperationWindow(Histogram.of(mean_seconds * shape), Histogram.of(service_seconds * shape))


def make_window(
    number: int,
    *,
    mean_seconds: float,
    rng: np.random.Generator,
    configuration: Configuration = STOCK,
    rate: float = 500.0,
    seconds: float = 10.0,
    errors: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
    gauges: Mapping[str, float] | None = None,
) -> Window:
    """Return the window with this number of a run that began at `START`."""
    started_at = START + timedelta(seconds=number * seconds)
    errors = errors or {}
    service_seconds = 0.7 * mean_seconds
    operations = {
        kind: operation(mean_seconds, service_seconds, rng, int(_SAMPLES * share)) for kind, share in MIX.items()
    }
    first = next(iter(operations))
    operations[first] = OperationWindow(operations[first].response, operations[first].service, sum(errors.values()))
    return Window(
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=seconds),
        configuration_id=configuration.id,
        labels={"run": "r1", "level": "MEDIUM"} | dict(labels or {}),
        rates={"database.commits_per_second": rate, "wal.generated_bytes_per_second": rate * 900.0},
        gauges={"activity.connections": 20.0, "locks.granted": 50 + 5 * rng.random(), **(gauges or {})},
        waits={"CPU": rate * service_seconds, "IO": 0.1 * rng.random()},
        operations=operations,
        lag=Histogram.of(np.full(20, 1e-4)),
        errors=errors,
    )


def history(
    count: int,
    seed: int,
    *,
    log_mean: Callable[[int, np.random.Generator], float],
    sqlstates: Callable[[int, np.random.Generator], Mapping[str, int]] = lambda number, rng: {},
    configuration: Callable[[int], Configuration] = lambda number: STOCK,
    gauges: Callable[[int], Mapping[str, float]] = lambda number: {},
    run: str = "r1",
) -> list[Observation]:
    """Return the observations of one run of adjacent windows, whose latency and errors are given by number."""
    rng = np.random.default_rng(seed)
    configurations = {configuration(number).id: configuration(number) for number in range(count)}
    windows = [
        make_window(
            number,
            mean_seconds=float(np.exp(log_mean(number, rng))),
            rng=rng,
            configuration=configuration(number),
            errors=sqlstates(number, rng),
            gauges=gauges(number),
            labels={"run": run},
        )
        for number in range(count)
    ]
    return observations(windows, configurations)
