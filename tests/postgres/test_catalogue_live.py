"""The catalogue against the settings of the PostgreSQL under test."""

import psycopg
import pytest

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.knobs.knob import Scope
from ml_postgres_optimization.knobs.memory import predicted_peak_bytes
from ml_postgres_optimization.knobs.rendering import parse, render, same_value
from ml_postgres_optimization.knobs.rules import rule_configuration
from ml_postgres_optimization.safety.constraints import CONSTRAINING_SETTINGS, Circumstances, review
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.server import PostgresTarget

MIB = 1 << 20
CONTEXTS = {
    Scope.SESSION: {"user", "superuser"},
    Scope.RELOAD: {"user", "superuser", "sighup"},
    Scope.RESTART: {"postmaster"},
}


@pytest.fixture
def target(server):
    with PostgresTarget.open(ConnectionSettings.from_dsn(server.dsn)) as target:
        yield target


@pytest.fixture
def settings(target):
    return target.settings(load_catalogue().settings_needed | CONSTRAINING_SETTINGS)


@pytest.fixture
def catalogue(settings, binaries):
    return load_catalogue().confront(settings, binaries.major)


def test_every_knob_of_this_version_is_there_and_nothing_else_is_left_out(catalogue, binaries):
    whole = load_catalogue()
    expected = {
        name
        for name, knob in whole.items()
        if (knob.since_version or 0) <= binaries.major <= (knob.until_version or 99)
    }
    assert expected - set(catalogue) <= {"wal_compression", "io_method"}, catalogue.left_out
    assert set(catalogue) <= expected


def test_types_units_and_ranges_are_those_of_the_server(catalogue, settings):
    for name, knob in catalogue.items():
        if name == CONCURRENCY:
            continue
        setting = settings[name]
        assert (knob.kind, knob.unit) == (setting.kind, setting.unit), name
        assert setting.context in CONTEXTS[knob.scope], name
        if knob.kind in {"integer", "real"}:
            assert setting.minimum <= knob.minimum < knob.maximum <= setting.maximum, name
        assert all(setting.minimum <= special <= setting.maximum for special in knob.special_values), name
        assert set(knob.choices) <= set(setting.enumvals), name


def test_the_whole_range_of_every_knob_is_accepted_by_the_server(catalogue, server):
    """In a session for those that a session may set; the others are read as the server would read its file."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for name, knob in catalogue.items():
            if knob.scope is not Scope.SESSION:
                continue
            for value in (knob.minimum, knob.maximum, *knob.special_values, *knob.choices):
                if value is not None:
                    text = render(value, knob.unit)
                    connection.execute("SELECT set_config(%s, %s, false)", (name, text))


def test_text_is_read_as_the_server_reads_it(settings, server):
    """What `pg_settings` shows in the base unit is what `parse` makes of the text that ``SHOW`` gives."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for name, setting in settings.items():
            (shown,) = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            assert same_value(parse(shown, setting.kind, setting.unit), setting.value, setting.kind), (name, shown)


def test_what_is_left_out_of_an_older_version_says_so(catalogue, binaries):
    if binaries.major < 18:
        assert catalogue.left_out["io_method"] == "PostgreSQL has it from 18 on"
    else:
        assert catalogue["autovacuum_max_workers"].scope is Scope.RELOAD


def test_full_page_images_are_compressed_with_what_was_built_in(catalogue, binaries):
    knob = catalogue["wal_compression"]
    if binaries.major == 14:
        assert (knob.kind, knob.choices) == ("bool", ())
    else:
        assert {"off", "pglz"} <= set(knob.choices)


def test_a_setting_of_the_database_is_found_and_left_alone(database, binaries):
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE \"{name}\" SET work_mem = '5MB'")
    with PostgresTarget.open(ConnectionSettings.from_dsn(database)) as target:
        catalogue = load_catalogue()
        there = catalogue.confront(target.settings(catalogue.settings_needed), binaries.major)
    assert there.left_out["work_mem"] == "it is set by ALTER DATABASE, which wins over ALTER SYSTEM"


def test_the_rules_make_a_configuration_that_passes_review_on_this_machine(target, settings, binaries):
    catalogue = load_catalogue().confront(settings, binaries.major, target.machine)
    advice = rule_configuration(target.machine, catalogue, settings)
    assert advice.reasons
    review(advice.configuration, Circumstances(catalogue, settings, target.machine, target.capabilities))


@pytest.mark.pg(">= 15")
def test_shared_memory_is_predicted_closely_and_never_too_low(target, settings):
    (size,) = target.settings(["shared_memory_size"]).values()
    values = {name: setting.value for name, setting in settings.items()}
    predicted = predicted_peak_bytes(values).parts["shared"]
    assert size.value * MIB <= predicted <= 1.1 * size.value * MIB
