"""Trials as the repository gives them back, made up."""

import math
import random
from datetime import UTC, datetime, timedelta

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.trials import Pair, PairedTest

STOCK = Configuration({"work_mem": 4096, "jit": True, "wal_compression": "off", "commit_delay": 0})
TUNED = STOCK.replaced({"work_mem": 65536, "jit": False, "wal_compression": "lz4", "commit_delay": 100})


def recorded(pairs=20, *, number=1, around=0.8, baseline=STOCK, candidate=TUNED, **more):
    """Return a trial with pairs `around` a ratio, whose interval is what the test says of them."""
    rng, test = random.Random(number), PairedTest()
    drawn = [(0.010, 0.010 * around * math.exp(rng.gauss(0, 0.1)), rng.random() < 0.5) for _ in range(pairs)]
    for pair in drawn:
        test.add(Pair(*pair))
    seen, low, high = test.interval()
    started_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    facts = {
        "id": f"20260101T{number:02}0000-0001",
        "started_at": started_at,
        "ended_at": started_at + timedelta(minutes=6),
        "baseline": baseline,
        "candidate": candidate,
        "origin": "rules",
        "reason": "sorts spill to disk",
        "outcome": "promoted",
        "ratio": seen,
        "ratio_low": low,
        "ratio_high": high,
        "verdict_reason": "the whole interval lies below 1",
        "pairs": tuple(drawn),
    }
    return TrialRecord(**(facts | more))
