"""The command lines on a real server: every command, its JSON, its dry run, its end by a signal."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime

import psutil
import psycopg
import pytest
from command_line import ROOT, CommandLine, by_hand, clean_environment, rows, started, written_settings
from guarded_trial import CANDIDATE
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization import __version__
from ml_postgres_optimization.interfaces.commands.online import optimization
from ml_postgres_optimization.interfaces.logs import LOG_NAME
from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.safety.guard import GuardedChange
from ml_postgres_optimization.target.postgres.connection import connect, resolve_connection
from ml_postgres_optimization.target.postgres.repository import Repository, SlowerPart, TrialRecord
from ml_postgres_optimization.trials.layout.arena import ServerArena
from ml_postgres_optimization.tuning.proposing.drafting import Draft

SHORT = ("--duration", "0.0008", "--scale", "0.02", "--level", "BASIC")
TRIED = Draft.of({"checkpoint_completion_target": 0.8}, "rules", "as the test has it")
PATIENCE_SECONDS = 90
COMMANDS = (
    ("setup",),
    ("test", "--simulate", *SHORT),
    ("optimize", "--simulate", *SHORT),
    ("tune", "--simulate", "--clients", "2", *SHORT),
    ("simulate", "--dry-run", *SHORT),
    ("benchmark", "--simulate", "--dry-run"),
    ("train",),
    ("status",),
    ("history",),
    ("explain",),
    ("export",),
    ("approve",),
    ("pause",),
    ("resume",),
    ("rollback",),
    ("doctor",),
    ("uninstall",),
)
CHANGING = ("setup", "simulate", "optimize", "tune", "test", "benchmark", "rollback", "uninstall")


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(load, "CAPACITY_SECONDS", 0.5)
    return CommandLine(capsys, tmp_path / "home")


@pytest.fixture
def here(cli, database):
    """The command line on a fresh database."""
    cli.dsn = database
    return cli


def test_the_version_is_told(cli):
    assert cli("--version").done().out == f"genesis-pg {__version__}\n"


@pytest.mark.parametrize("command", [None, *(words[0] for words in COMMANDS)])
def test_every_command_has_help(cli, command):
    assert "Usage: genesis-pg" in cli(*filter(None, (command, "--help"))).done().out


@pytest.mark.slow
def test_every_command_prints_one_json_document(here):
    """In the order of a user's first day, so that each has something to say."""
    documents = {}
    for words in COMMANDS:
        ended = here(*words, "--json").done(0, 1)
        documents[words[0]] = ended.document
        assert "error" not in ended.document, ended
    assert documents["setup"]["version_after"] > 0
    assert documents["status"]["windows"]
    assert documents["export"]["windows"] > 0
    assert all(check["state"] in {"ok", "warning"} for check in documents["doctor"]["checks"])
    assert documents["uninstall"]["dropped"]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] != "doctor"], ids=lambda words: words[0])
def test_an_error_is_one_json_document_too(cli, words):
    cli.dsn = "host=/nowhere dbname=none user=nobody"
    ended = cli(*words, "--json").is_refused(3, "/nowhere")
    error = ended.document["error"]
    assert ended.err == f"{error['what']}\n{error['next_step']}\n"
    assert (error["kind"], error["exit_code"]) == ("ServerUnreachable", 3)


def test_doctor_tells_an_error_as_a_finding(cli):
    cli.dsn = "host=/nowhere dbname=none user=nobody"
    ended = cli("doctor", "--json")
    assert ended.code == 3
    failures = [check["name"] for check in ended.document["checks"] if check["state"] == "failure"]
    assert failures == ["server"]


def test_an_error_of_usage_is_one_json_document_too(cli):
    ended = cli("status", "--unknown", "--json").is_refused(2, "--unknown", "genesis-pg status --help")
    assert ended.document["error"]["kind"] == "UsageError"


def state_of(dsn):
    """What a dry run could have changed."""
    query = "SELECT name, setting FROM pg_settings WHERE source NOT IN ('session', 'client', 'override') ORDER BY 1"
    schemas = rows(dsn, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast)' ORDER BY 1")
    extensions = rows(dsn, "SELECT extname FROM pg_extension ORDER BY 1")
    return rows(dsn, query), written_settings(dsn), schemas, extensions


@pytest.mark.parametrize("command", CHANGING)
def test_a_dry_run_changes_nothing(here, database, command):
    before = state_of(database)
    simulate = ("--simulate",) if command in {"test", "optimize", "benchmark"} else ()
    ended = here(command, *simulate, "--dry-run").done()
    assert ended.out.strip()
    assert state_of(database) == before


def test_the_sql_of_a_dry_run_can_be_run(here, database):
    script = here("optimize", "--dry-run", "--json").document["sql"]
    assert script
    assert all(line.startswith("ALTER SYSTEM SET ") and line.endswith(";") for line in script)


def test_nothing_is_loaded_unasked(here, database):
    for words in (("test",), ("test", "--dry-run")):
        here(*words).is_refused(2, "--simulate")
    assert rows(database, "SELECT 1 FROM pg_namespace WHERE nspname ~ 'genesis'") == []


@pytest.mark.parametrize("name", ['two words\' "quoted"; DROP %s {} \\', "ünïcödé"], ids=["ascii", "unicode"])
def test_a_hostile_database_name_is_only_a_name(cli, server, name):
    identifier = sql.Identifier(name)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            cli.dsn = make_conninfo(server.dsn, dbname=name)
            for command in ("setup", "status", "history", "rollback", "uninstall"):
                cli(command).done()
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def test_the_specifications_variables_name_the_server(cli, database, monkeypatch):
    parameters = psycopg.conninfo.conninfo_to_dict(database)
    for variable, name in {"HOST": "host", "PORT": "port", "USER": "user", "DB": "dbname"}.items():
        monkeypatch.setenv(f"POSTGRES_{variable}", parameters[name])
    cli.classic("--mode", "setup").done()
    assert rows(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'genesis'")


def test_a_defect_is_two_lines_and_its_traceback_is_in_the_log(here, monkeypatch):
    here("setup").done()
    monkeypatch.setattr("ml_postgres_optimization.interfaces.commands.extended_test.ensure_tables", divide)
    ended = here("test", "--simulate").is_refused(1, "defect", "ZeroDivisionError", LOG_NAME)
    log = (here.home / "logs" / LOG_NAME).read_text()
    assert "divide" in log and "ZeroDivisionError" in json.loads(log.splitlines()[-1])["exception"]
    assert here("test", "--simulate", "--debug").err.count("Traceback") == 1
    assert "divide" not in ended.err


def divide(_session):
    return 1 / 0


def test_debug_shows_the_traceback_of_an_error(cli):
    cli.dsn = "host=/nowhere user=nobody"
    ended = cli("status", "--debug")
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-2].startswith("No connection to")


def test_run_py_starts_from_any_folder(tmp_path):
    process = subprocess.run(
        [sys.executable, ROOT / "run.py", "--mode", "nonsense"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "GENESIS_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "The mode 'nonsense' is not known.",
        "Choose one of: setup, optimize, test, all.",
    ]
    assert list(tmp_path.iterdir()) == []


def commands_below(pid):
    """Command lines of the living descendants; one that ends meanwhile (a backend of a server does) is none."""
    commands = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            commands.append(" ".join(child.cmdline()))
    return commands


class TestStopped:
    """What is left when a run is stopped while a setting is on trial."""

    @pytest.fixture
    def stop_on_trial(self, monkeypatch):
        """Have `stop` called as soon as the one proposed setting is in force."""

        def arrange(stop):
            original = GuardedChange.apply

            def apply(change):
                original(change)
                if change._knobs:
                    stop()

            monkeypatch.setattr(GuardedChange, "apply", apply)
            monkeypatch.setattr(optimization, "rule_drafts", lambda *_, **__: [TRIED])

        return arrange

    @pytest.fixture
    def tuned(self, cli, own_server):
        cli.dsn = own_server.dsn
        cli("setup").done()
        by_hand(own_server.dsn, "ALTER SYSTEM SET checkpoint_completion_target = 0.7", "SELECT pg_reload_conf()")
        return cli

    @pytest.fixture
    def heeding(self):
        """Heed SIGHUP even where whoever started the tests, nohup for one, has it ignored."""
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        yield
        signal.signal(signal.SIGHUP, before)

    MIRRORED = "SELECT entry ->> 'kind' FROM genesis.journal ORDER BY number"

    def optimize(self, tuned):
        return tuned("optimize", "--simulate", "--duration", "0.03", "--scale", "0.02", "--level", "BASIC")

    @pytest.mark.parametrize(
        "number",
        [
            signal.SIGTERM,
            pytest.param(signal.SIGINT, marks=pytest.mark.long),
            pytest.param(signal.SIGHUP, marks=pytest.mark.long),
        ],
    )
    @pytest.mark.usefixtures("heeding")
    def test_a_signal_puts_everything_back(self, tuned, own_server, stop_on_trial, number):
        seen = []

        def stop():
            seen.extend(written_settings(own_server.dsn))
            os.kill(os.getpid(), number)

        stop_on_trial(stop)
        before = written_settings(own_server.dsn)
        self.optimize(tuned).is_refused(130, "Interrupted", "the proven configuration is in force")
        assert ("checkpoint_completion_target", "0.8") in seen
        assert written_settings(own_server.dsn) == before
        assert rows(own_server.dsn, "SHOW checkpoint_completion_target") == [("0.7",)]
        assert not any("workload.process" in command for command in commands_below(os.getpid()))
        assert tuned("status", "--json").document["unfinished_trials"] == []

    def test_a_signal_while_sessions_of_ours_try_a_setting_leaves_the_server_as_it_was(
        self, tuned, own_server, monkeypatch
    ):
        original, seen = ServerArena.divide, []

        def divide(arena, arms):
            original(arena, arms)
            seen.extend(written_settings(own_server.dsn))
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(ServerArena, "divide", divide)
        draft = Draft.of({"random_page_cost": 1.1}, "rules", "as the test has it")
        monkeypatch.setattr(optimization, "rule_drafts", lambda *_, **__: [draft])
        before = written_settings(own_server.dsn)
        self.optimize(tuned).is_refused(130, "Interrupted", "the proven configuration is in force")
        assert seen == before == written_settings(own_server.dsn)
        assert not any("workload.process" in command for command in commands_below(os.getpid()))
        assert tuned("status", "--json").document["unfinished_trials"] == []

    @pytest.mark.slow
    @pytest.mark.long
    def test_a_server_that_is_gone_is_put_right_by_the_next_start(
        self, tuned, own_server, stop_on_trial, kill_the_watchdogs
    ):
        stop_on_trial(own_server.kill)
        before = written_settings(own_server.dsn)
        self.optimize(tuned).is_refused(3, "stays unfinished, and the next start undoes it")
        assert kill_the_watchdogs()
        own_server.restart()
        assert ("checkpoint_completion_target", "0.8") in written_settings(own_server.dsn)
        assert len(tuned("status", "--json").document["unfinished_trials"]) == 1
        assert "Undid trial" in tuned("setup").done().out
        assert written_settings(own_server.dsn) == before
        assert rows(own_server.dsn, "SHOW checkpoint_completion_target") == [("0.7",)]

    def test_whoever_loses_the_lock_changes_nothing_more(self, tuned, own_server, stop_on_trial):
        ended = []

        def end_the_locks_session():
            query = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'genesis-pg: settings %'"
            )
            ended.extend(rows(own_server.dsn, query))

        stop_on_trial(end_the_locks_session)
        before = written_settings(own_server.dsn)
        stopped = self.optimize(tuned)
        # where the candidate's block is bad enough to end the trial first, the next one meets the lost session
        what = {3: "and with it the right to keep something on trial", 4: "The lock of the one optimiser is lost"}
        stopped.is_refused(stopped.code, what.get(stopped.code, "neither"))
        assert ended == [(True,)]
        assert written_settings(own_server.dsn) == before
        mirrored = [kind for (kind,) in rows(own_server.dsn, self.MIRRORED)]
        assert mirrored[:4] == ["intent", "armed", "applied", "verified"]
        assert mirrored[-1] == "reverted"
        again = tuned("optimize", "--simulate", "--duration", "0.003", "--scale", "0.02", "--level", "BASIC")
        assert again.out.count("The watchdog stands by alone. ") == 1, "there is no dblink"
        assert [kind for (kind,) in rows(own_server.dsn, self.MIRRORED)][: len(mirrored)] == mirrored, "none twice"

    def test_a_repository_that_refuses_takes_no_more_sessions(self, tuned, own_server, monkeypatch):
        by_hand(
            own_server.dsn,
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$",
            "CREATE TRIGGER full_disk BEFORE INSERT ON genesis.metric_windows "
            "FOR EACH ROW EXECUTE FUNCTION full_disk()",
        )
        sessions = []

        def count(_observer, _window):
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'genesis-pg: repository'"
            sessions.extend(rows(own_server.dsn, query)[0])

        monkeypatch.setattr(Observer, "_learn_texts", count)
        monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "0.5")
        ended = tuned("test", "--simulate", "--duration", "0.002", "--scale", "0.02", "--level", "BASIC").done(0, 1)
        assert len(sessions) > 5
        assert max(sessions) == 1
        assert "records could not be stored in the repository" in ended.out

    @pytest.mark.long
    def test_ctrl_c_without_a_server_does_not_claim_that_all_is_well(self, tuned, own_server, stop_on_trial):
        def stop():
            own_server.kill()
            os.kill(os.getpid(), signal.SIGINT)

        stop_on_trial(stop)
        ended = self.optimize(tuned).is_refused(130, "stays unfinished", "the next start undoes it")
        assert "in force" not in ended.err

    def test_what_a_killed_run_left_is_undone_by_the_next_start_which_says_so(self, tuned, own_server):
        journal = tuned.home / "servers" / tuned("status", "--json").document["system_identifier"]
        script = ROOT / "tests" / "postgres" / "guarded_trial.py"
        before = written_settings(own_server.dsn)
        killed = subprocess.Popen(
            [sys.executable, script, own_server.dsn, journal, "applied"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        with killed:
            assert killed.stdout.readline() == b"applied\n"
            killed.kill()
        assert dict(written_settings(own_server.dsn)).keys() >= CANDIDATE.keys()

        for words in (("status",), ("optimize", "--dry-run"), ("doctor",)):
            assert "Undid" not in tuned(*words).done().out
        assert tuned("status", "--json").document["unfinished_trials"] == ["t1"]
        assert "Undid trial t1" in tuned("setup").done().out
        assert written_settings(own_server.dsn) == before


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_behind(folder):
    """As a process, on the embedded server: load generators and postmaster end with it."""
    process = started("--mode", "optimize", "--duration", "0.05", "--scale", "0.02", home=folder)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "watched" not in process.stdout.readline():
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        family = psutil.Process(process.pid).children(recursive=True)
        names = " ".join(" ".join(child.cmdline()) for child in family)
        assert "workload.process" in names and "postgres" in names
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert [len(line) > 0 for line in err.splitlines()] == [True, True], err
    assert err.startswith("Interrupted.")
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


class TestExplain:
    """What a user is told of one trial."""

    STOCK = Configuration({"work_mem": 4096, "jit": True})
    RECORD = TrialRecord(
        id="20260101T000000-0001",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        ended_at=datetime(2026, 1, 1, 0, 6, tzinfo=UTC),
        baseline=STOCK,
        candidate=STOCK.replaced({"work_mem": 16384}),
        origin="rules",
        reason="sorts spill to disk",
        outcome="rejected",
        ratio=0.8,
        ratio_low=0.7,
        ratio_high=0.9,
        verdict_reason="query 42 takes 1.9 times as long",
        pairs=tuple((0.010, 0.008 + 0.0001 * number, number % 2 == 0) for number in range(25)),
        figures={
            **{f"{arm}_{name}_seconds": 0.01 for arm in ("baseline", "candidate") for name in ("mean", "p95", "p99")},
            "baseline_checkpoints": 0.0,
            "candidate_checkpoints": 9.0,
        },
        slower_parts=(SlowerPart("query 42", 0.03, 1.9, 1.6, 2.4),),
    )

    @pytest.fixture
    def recorded(self, here):
        here("setup").done()
        with connect(resolve_connection(here.dsn, {})) as connection:
            repository = Repository(connection)
            repository.add_trial(replace(self.RECORD, id="20250101T000000-0001", started_at=self.RECORD.started_at))
            repository.add_trial(self.RECORD)
        return here

    def test_the_story_of_the_last_trial(self, recorded):
        out = recorded("explain").done().out
        for told in (
            "work_mem  4MB       16MB",
            "Proposed by rules: sorts spill to disk.",
            "Seen: −20 % (−30 % to −10 %) in response time, over 25 pairs of blocks.",
            "Verdict: rejected, for query 42 takes 1.9 times as long.",
            "Uneven between the arms: checkpoints: 9 under the candidate, 0 under the baseline.",
            "query 42",
            "+90 % (+60 % to +140 %)",
        ):
            assert told in out
        assert "Which of them mattered" not in out

    def test_every_pair_is_in_the_json(self, recorded):
        document = recorded("explain", self.RECORD.id, "--json").document
        assert [step["pairs"] for step in document["evidence"]] == list(range(1, 26))
        assert document["evidence"][0]["high"] is None
        assert 0.7 < document["evidence"][-1]["low"] < document["evidence"][-1]["ratio"] < 1
        assert document["slower_parts"][0]["part"] == "query 42"
        assert document["changes"] == {"work_mem": {"before": 4096, "after": 16384}}

    def test_a_trial_that_there_is_not(self, recorded):
        recorded("explain", "nonesuch").is_refused(2, "'nonesuch'", "genesis-pg history")
