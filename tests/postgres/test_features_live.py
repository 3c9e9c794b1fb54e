"""The features of a real server: the collector knows their names, and SQL can encode what Python does."""

import psycopg
import pytest

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.features import TELEMETRY, encode_text, features
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.target.host import HostProbe
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities
from ml_postgres_optimization.target.postgres.collector import StatisticsCollector
from ml_postgres_optimization.telemetry import between


@pytest.fixture
def window(server, database):
    with psycopg.connect(database, autocommit=True, application_name="genesis-pg: test") as connection:
        collector = StatisticsCollector(
            connection, read_capabilities(connection), HostProbe(data_directory=server.data_directory)
        )
        before, activity = collector.snapshot(), collector.activity()
        return between(before, collector.snapshot(), configuration_id="stock", activity=[activity])


def test_every_chosen_name_is_one_that_a_real_server_tells(window):
    told = {**window.rates, **window.gauges}
    missing = {name for name in TELEMETRY if name not in told}
    # a container may hide pressure and the disk; then the probe says so, and nothing else may be missing
    hidden = {name for name in missing if name.startswith("host.")}
    assert missing == hidden
    assert not hidden or any(part.startswith("host") for part in window.unseen)


def test_what_was_told_becomes_a_feature(window):
    named = features(Observation(Configuration({}), window))
    assert named["database.backends"] == window.gauges["database.backends"] >= 1.0
    assert named["activity.connections"] == window.gauges["activity.connections"]


def test_sql_encodes_a_text_as_python_does(database):
    query = "SELECT ('x' || left(encode(sha256(convert_to(%s, 'UTF8')), 'hex'), 8))::bit(32)::bigint / 2.0 ^ 32"
    with psycopg.connect(database) as connection:
        for text in ("lz4", "pglz", "remote_write", "ñ", ""):
            assert float(connection.execute(query, [text]).fetchone()[0]) == pytest.approx(
                encode_text(text), abs=1e-12
            )
