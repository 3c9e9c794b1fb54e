"""Where the limiter begins in a benchmark: what the trained forests say of each level beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ml_postgres_optimization.comparison.terms import Terms
from ml_postgres_optimization.interfaces.commands.benchmarking.configurations import Configurations
from ml_postgres_optimization.interfaces.commands.benchmarking.foretelling import Forecast
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.learned import load_forest
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.preventing import USUAL, Costs, Foresight, beginning
from ml_postgres_optimization.workload import Level

# of those that are kept, to find one of a level among them
_RECENT_WINDOWS = 500


def with_limits(
    session: Session, forecast: Forecast, terms: Terms, compared: Configurations, levels: Sequence[Level]
) -> Terms:
    """Return the terms with what the limiter begins with, at each level of which a forest tells it.

    The response surface over the knobs says which number answers soonest; where the error forest foretells errors for
    it after the last window that is kept of the level, fewer. Without forests the terms are what they were.
    """
    loaded = load_forest(session, KnobForest)
    if loaded is None and forecast.model is None:
        return terms
    last = _last_windows(session.repository().windows(last=_RECENT_WINDOWS))
    pools = ((compared.base, terms.connections), (compared.optimised, terms.configured_connections))
    limits = {}
    for level in levels:
        context = _context(level, terms.rate_of(level))
        numbers = [beginning(loaded.model, one, context, most=pool) if loaded else None for one, pool in pools]
        safe = [
            _without_danger(forecast, configuration.replaced({CONCURRENCY: pool}), last.get(level.name), number)
            for (configuration, pool), number in zip(pools, numbers, strict=True)
        ]
        if any(number is not None for number in safe):
            base, proven = (number and min(pool, number) for number, (_, pool) in zip(safe, pools, strict=True))
            limits[level.name] = (base, proven)
    return replace(terms, limits=limits)


def limits_told(terms: Terms) -> Iterator[str]:
    """Yield a sentence for each level whose limiter begins where a forest says."""
    for level, (base, optimised) in terms.limits.items():
        yield (
            f"The limiter begins at {level} with {_number(base)} at once under base's configuration and "
            f"{_number(optimised)} under the optimised one, as the trained forests foretell."
        )


def _number(limit: int | None) -> str:
    return f"{USUAL} in each client process, untold," if limit is None else f"{limit} operations"


def _context(level: Level, rate_per_second: float) -> LoadContext:
    mix = level.mix
    return LoadContext(rate_per_second, dict(zip(mix.names, mix.shares, strict=True)), level.name)


def _last_windows(windows: Sequence[Window]) -> Mapping[str, Window]:
    """Return the newest window of each level of our own load."""
    return {window.labels["level"]: window for window in windows if "level" in window.labels}


def _without_danger(
    forecast: Forecast, configuration: Configuration, window: Window | None, number: int | None
) -> int | None:
    """Return a number, or fewer where errors are foretold for it."""
    if forecast.model is None or window is None:
        return number
    foresight = Foresight(forecast.model, forecast.model_id, Observation(configuration, window))
    prior = foresight.prior(Costs().threshold, most=number or USUAL)
    return number if prior.ceiling is None else prior.begin
