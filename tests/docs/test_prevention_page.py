"""The examples of docs/prevention.md run, where a forest warns and where nothing is known yet."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

from ml_postgres_optimization.interfaces.workbench.stored import forest_record
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.error_forest import Calibration, ErrorForest
from ml_postgres_optimization.models.forest import Forest
from ml_postgres_optimization.models.score import ErrorScore, Skill
from ml_postgres_optimization.retry import ErrorClass, Prior
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import Repository
from ml_postgres_optimization.target.postgres.schema import install_schema
from ml_postgres_optimization.telemetry import Window

PAGE = Path(__file__).resolve().parents[2] / "docs" / "prevention.md"
STOCK = Configuration({"work_mem": 4096})


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def warning_forest(probability):
    """Return a forest of one leaf: the same for every window."""
    one = np.zeros(1, dtype=np.int32)
    arrays = {
        "roots": one,
        "feature": one,
        "threshold": np.zeros(1),
        "left": one,
        "right": one,
        "missing_goes_left": np.zeros(1, dtype=np.bool_),
        "value": np.array([[probability]]),
        "samples": one + 20,
    }
    score = {ErrorClass.DEADLOCK: ErrorScore(60, 20, Skill(0.1, 0.2, 0.5, 0.3))}
    forest = Forest.of_arrays(("locks.waiting",), arrays)
    return ErrorForest(forest, {ErrorClass.DEADLOCK: Calibration("raw")}, score, "digest")


@pytest.mark.parametrize(("probability", "ceiling"), [(None, None), (0.1, None), (0.9, 4)])
def test_the_examples_run(database, probability, ceiling):
    with connect(ConnectionSettings.from_dsn(database)) as connection:
        install_schema(connection)
        if probability is not None:
            repository, now = Repository(connection), datetime.now(UTC)
            repository.add_configuration(STOCK, origin="test")
            repository.add(Window(now - timedelta(seconds=10), now, STOCK.id))
            repository.add_forests([forest_record(warning_forest(probability), "errors-1", now)])
    names = {"dsn": database}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["limiter"].limit.limit <= (ceiling or 1000)
    assert names["look_ahead"](database) == Prior(ceiling or 8, ceiling)
    with psycopg.connect(database) as connection:
        for block in blocks("sql"):
            for statement in filter(str.strip, block.split(";")):
                connection.execute(statement)
