"""Tuning for a workload that runs for the tuning alone: what is brought, tried, written, and refused."""

import json
import shlex
import time

import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment, rows, written_settings

from ml_postgres_optimization.interfaces.commands.offline import tune
from ml_postgres_optimization.target.embedded.account import server_account
from ml_postgres_optimization.target.embedded.postmaster import clean_up_after_crash
from ml_postgres_optimization.tuning.offline import OfflineTuner
from ml_postgres_optimization.workload import (
    TABLE_SETS,
    TPCB_TABLES,
    LoadGenerator,
    LoadPlan,
    create_tables,
    drop_tables,
    first_run,
    tables_scale,
    workload_named,
)

# a search takes half a minute: once in CI, on the version that is installed
pytestmark = pytest.mark.slow
HOURS = "0.0111"
SHORT = ("--duration", HOURS, "--clients", "2")


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tune, "_SHORTEST_BLOCK_SECONDS", 1.0)
    clean_environment(monkeypatch, tmp_path / "home")
    return CommandLine(capsys, tmp_path / "home")


@pytest.fixture
def here(cli, database):
    """The command line on a fresh database, with schema genesis and two tables of the user's."""
    cli.dsn = database
    cli("setup").done()
    by_hand(
        database,
        "CREATE TABLE items (id integer PRIMARY KEY, value integer NOT NULL)",
        "INSERT INTO items SELECT number, 0 FROM generate_series(1, 100) AS number",
    )
    return cli


@pytest.fixture
def folder(tmp_path):
    """A workload of the user's: three reads to one write."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "read@3.sql").write_text("\\set id random(1, 100)\nSELECT value FROM items WHERE id = :id;\n")
    (folder / "write.sql").write_text(
        "\\set id random(1, 100)\nBEGIN;\nUPDATE items SET value = value + 1 WHERE id = :id;\nCOMMIT;\n"
    )
    return folder


def test_a_folder_of_scripts_is_a_load_in_the_shares_of_its_weights(here, folder):
    workload = workload_named(str(folder), clients=2)
    with LoadGenerator(here.dsn, LoadPlan(workload.mix, connections=2, clients=2)) as load:
        while load.counters.succeeded_total < 200:
            pass
    batches = load.samples()
    assert load.counters.failed_total == 0
    kinds = [batch.kinds[index] for batch in batches for index in batch.kind_index]
    assert kinds.count("read") / len(kinds) == pytest.approx(0.75, abs=0.02)
    assert rows(here.dsn, "SELECT sum(value) FROM items") == [(kinds.count("write"),)]


def test_a_paused_load_leaves_the_server_and_comes_back(here, folder):
    workload = workload_named(str(folder), clients=2)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'genesis-load'"
    with LoadGenerator(here.dsn, LoadPlan(workload.mix, connections=2, clients=2)) as load:
        load.pause()
        while rows(here.dsn, query) != [(0,)]:
            pass
        before = load.counters.succeeded_total
        load.resume()
        while load.counters.succeeded_total < before + 100:
            pass
        assert rows(here.dsn, query) == [(2,)]
    assert load.counters.failed_total == 0


@pytest.mark.parametrize("name", ["tpcb", "analytic"])
def test_what_comes_with_us_can_be_played_on_its_own_tables(database, name):
    scale = {"tpcb": 1.0, "analytic": 0.02}[name]
    workload = workload_named(name, scale=scale)
    create_tables(database, scale, workload.table_set)
    seconds = first_run(database, workload.mix)
    assert len(seconds) == {"tpcb": 1, "analytic": 15}[name]
    create_tables(database, scale, workload.table_set)
    assert tables_scale(database, workload.table_set) == scale
    drop_tables(database, workload.table_set)
    assert tables_scale(database, workload.table_set) is None


def test_tpcb_is_pgbench_s_transaction(database):
    create_tables(database, 1.0, TPCB_TABLES)
    first_run(database, workload_named("tpcb", scale=1.0).mix)
    schema = TPCB_TABLES.schema
    sums = [
        rows(database, f"SELECT sum({column}) FROM {schema}.pgbench_{table}")[0][0]
        for table, column in (("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance"))
    ]
    deltas = rows(database, f"SELECT sum(delta), count(*) FROM {schema}.pgbench_history")[0]
    assert [deltas[0]] * 3 == sums
    assert deltas[1] == 1
    assert rows(database, f"SELECT count(*) FROM {schema}.pgbench_accounts") == [(100_000,)]


def test_the_analytic_facts_refer_to_their_dimensions(database):
    (analytic,) = [table_set for table_set in TABLE_SETS if table_set.folder == "analytic"]
    create_tables(database, 0.01, analytic)
    for dimension, key in (("days", "day"), ("stores", "store"), ("products", "product"), ("customers", "customer")):
        orphans = (
            f"SELECT count(*) FROM genesis_analytic.sales LEFT JOIN genesis_analytic.{dimension} USING ({key}_id)"
            f" WHERE genesis_analytic.{dimension}.{key}_id IS NULL"
        )
        assert rows(database, orphans) == [(0,)]
    promoted = rows(
        database,
        "SELECT avg((promotion_id IS NOT NULL)::integer) FROM genesis_analytic.sales"
        " LEFT JOIN genesis_analytic.promotions USING (promotion_id)",
    )
    assert float(promoted[0][0]) == pytest.approx(0.2, abs=0.03)


def test_tuning_writes_what_it_found_and_leaves_only_what_is_proven(here, folder, tmp_path):
    output = tmp_path / "out"
    before = written_settings(here.dsn)
    ended = here("tune", "--simulate", "--workload", folder, "--output", output, "--json", *SHORT).done(0, 1)
    document = ended.document
    assert document["workload"] == "shop"
    assert set(document["files"]) == {"sql", "conf", "json", "html"}
    assert "<!DOCTYPE html>" in (output / document["files"]["html"]).read_text()[:100]
    sql = (output / document["files"]["sql"]).read_text()
    assert sql.startswith("-- genesis-pg tune")
    assert sql.rstrip().endswith("SELECT pg_reload_conf();")
    assert json.loads((output / document["files"]["json"]).read_text())["best"] == document["best"]
    assert document["trials"], "the rules at least"
    assert all(trial["design"] == "switchback" for trial in document["trials"]), "a restart was not allowed"
    if not document["is_proven"]:
        assert ended.code == 1
        assert written_settings(here.dsn) == before
    here("rollback").done()
    assert written_settings(here.dsn) == before


def test_a_dry_run_says_what_would_be_searched_and_changes_nothing(here, folder):
    ended = here("tune", "--simulate", "--workload", folder, "--dry-run", *SHORT).done()
    assert "Tried first for workload shop; nothing was changed:" in ended.out
    assert "shared_buffers" not in here("tune", "--workload", "tpcb", "--dry-run", "--json").done().document["knobs"]
    assert rows(here.dsn, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'genesis\\_%'") == [(0,)]


SCRIPTS = {
    "syntax": ("a.sql", "SELEKT 1;", ["script a", "SELEKT", "42601"]),
    "table": ("a.sql", "SELECT * FROM nowhere;", ["script a", "nowhere", "42P01"]),
    "meta": ("a.sql", "\\set n random(1,\nSELECT :n;", ["a.sql", "line 1"]),
    "open": ("a.sql", "BEGIN;\nSELECT 1;", ["script a", "inside a transaction"]),
    "shell": ("a.sql", "\\shell rm -rf /\nSELECT 1;", ["a.sql", "shell"]),
    "zero": ("a@0.sql", "SELECT 1;", ["weight"]),
    "text": ("notes.txt", "SELECT 1;", ["there is no script"]),
    "division": ("a.sql", "\\set n 1 / 0\nSELECT :n;", ["script a", "division by zero"]),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_script_that_cannot_work_is_refused_before_anything_is_measured(here, tmp_path, case):
    name, text, said = SCRIPTS[case]
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / name).write_text(text + "\n")
    before = written_settings(here.dsn)
    here("tune", "--simulate", "--workload", folder, *SHORT).is_refused(2, *said)
    assert written_settings(here.dsn) == before


def test_a_query_that_never_ends_is_stopped_and_named(here, tmp_path):
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "endless.sql").write_text("SELECT pg_sleep(3600);\n")
    refused = here("tune", "--simulate", "--workload", folder, "--query-timeout", "0.5", *SHORT)
    refused.is_refused(2, "Script endless", "--query-timeout")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--simulate", "--workload", "nothing_like_it"), 2, ["nothing_like_it", "genesis, tpcb or analytic"]),
        (("--workload", "tpcb"), 2, ["--simulate"]),
        (("--simulate", "--workload", "tpcb", "--clients", "0"), 2, ["--clients"]),
        (("--simulate", "--workload", "tpcb", "--scale", "1", "--clients", "5000"), 2, ["5000 clients", "--clients"]),
        (("--simulate", "--workload", "tpcb", "--scale", "0.5"), 2, ["0.5", "scale"]),
        (("--simulate", "--workload", "tpcb", "--query-timeout", "soon"), 2, ["--query-timeout"]),
        (("--simulate", "--workload", "tpcb", "--query-timeout", "0.0001"), 2, ["--query-timeout", "0.001"]),
        (("--simulate", "--trials", "0"), 2, ["--trials"]),
        (("--simulate", "--study", "nonsense://here"), 2, ["nonsense"]),
        (("--simulate", "--allow-restart"), 2, ["--restart-command"]),
        (("--simulate", "--allow-restart", "--restart-command", "pg_ctl 'x"), 2, ["--restart-command"]),
    ],
)
def test_a_wrong_word_is_refused(here, words, code, said):
    here("tune", *words).is_refused(code, *said)


def test_an_empty_folder_and_one_that_is_a_file_are_refused(here, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.sql").write_text("SELECT 1;\n")
    here("tune", "--simulate", "--workload", tmp_path / "empty", *SHORT).is_refused(2, "empty")
    here("tune", "--simulate", "--workload", tmp_path / "file.sql", *SHORT).is_refused(2, "file.sql")


def test_a_folder_for_the_result_that_cannot_be_written_is_found_out_before_the_work(here, folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    words = ("tune", "--simulate", "--workload", folder, "--output", tmp_path / "file" / "below", *SHORT)
    begun = time.monotonic()
    here(*words).is_refused(2, str(tmp_path / "file"), "--output")
    assert time.monotonic() - begun < 0.5 * float(HOURS) * 3600


@pytest.mark.long
def test_scripts_of_which_too_few_rounds_fit_into_the_time_are_refused_with_the_time_that_it_takes(here, tmp_path):
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "often@200.sql").write_text("SELECT pg_sleep(0.05);\n")
    (folder / "seldom.sql").write_text("SELECT 1;\n")
    refused = here("tune", "--simulate", "--workload", folder, *SHORT)
    refused.is_refused(2, "A round of all scripts takes", "--duration 0.0")


@pytest.mark.long
def test_a_server_of_the_users_is_restarted_where_that_is_allowed(cli, own_server, folder, monkeypatch):
    # so short a run has no time to prove it, and would try none
    monkeypatch.setattr(OfflineTuner, "_least_proof_seconds", lambda _tuner, _found: 0.0)
    if not own_server.binaries.program("pg_ctl").exists():
        pytest.skip("this build comes without pg_ctl")
    cli.dsn = own_server.dsn
    cli("setup").done()
    by_hand(
        own_server.dsn,
        "CREATE TABLE items (id integer PRIMARY KEY, value integer NOT NULL)",
        "INSERT INTO items SELECT number, 0 FROM generate_series(1, 100) AS number",
    )
    account = server_account()
    command = [own_server.binaries.program("pg_ctl"), "-D", own_server.data_directory, "-w", "-m", "fast", "restart"]
    switched = ["runuser", "-u", account.name, "--"] if account.switched else []
    words = ["tune", "--simulate", "--workload", folder, "--duration", "0.0139", "--clients", "2", "--json"]
    words += ["--allow-restart", "--restart-command", shlex.join([*switched, *map(str, command)])]
    try:
        document = cli(*words).done(0, 1).document
        designs = {trial["design"] for trial in document["trials"]}
        assert "restart" in designs
        with psycopg.connect(own_server.dsn) as connection:
            (buffers,) = connection.execute("SELECT setting::integer FROM pg_settings WHERE name = 'shared_buffers'")
        wanted = document["best" if document["is_proven"] else "initial"]["values"]["shared_buffers"]
        assert buffers == (wanted,)
    finally:
        clean_up_after_crash(own_server.data_directory, account)


def test_what_is_pinned_is_left_out_and_said(here, folder):
    by_hand(here.dsn, "ALTER ROLE CURRENT_USER SET work_mem = '5MB'")
    try:
        document = here("tune", "--workload", folder, "--dry-run", "--json", *SHORT).done().document
    finally:
        by_hand(here.dsn, "ALTER ROLE CURRENT_USER RESET work_mem")
    assert "ALTER ROLE" in document["left_out"]["work_mem"]
    assert "work_mem" not in document["knobs"]
