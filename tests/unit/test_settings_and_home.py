"""What can be chosen from outside, where things are kept, and what stands in the log."""

import json
import math
import os

import pytest

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.home import Home, resolve_home
from ml_postgres_optimization.interfaces.logs import LOG_NAME, open_log
from ml_postgres_optimization.interfaces.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("GENESIS_")]:
        monkeypatch.delenv(name)


class TestSettings:
    def test_the_defaults_are_those_of_the_specification(self):
        settings = load_settings({})
        assert (settings.duration_seconds, settings.level, settings.simulate) == (3600.0, "HIGH", False)
        assert (settings.minimum_success_ratio, settings.maximum_mean_milliseconds) == (None, None)

    def test_an_option_wins_over_the_environment_and_that_over_the_default(self, monkeypatch):
        monkeypatch.setenv("GENESIS_SEED", "7")
        assert load_settings({}).seed == 7
        assert load_settings({"seed": None}).seed == 7
        assert load_settings({"seed": "8"}).seed == 8

    @pytest.mark.parametrize("name", sorted(Settings.model_fields))
    def test_what_is_empty_in_the_environment_was_not_chosen(self, monkeypatch, name):
        monkeypatch.setenv(f"GENESIS_{name.upper()}", "")
        assert load_settings({}) == Settings()

    @pytest.mark.parametrize("hours", ["0", "-1", "1e9", "nan", "inf", "-inf", "abc", "", "0x10", "1,5", "8785"])
    def test_a_duration_that_is_none(self, hours):
        with pytest.raises(UsageError) as refused:
            load_settings({"duration_hours": hours})
        assert refused.value.what.startswith(f"--duration is '{hours}': must be ")
        assert refused.value.next_step == "Give another --duration."

    @pytest.mark.parametrize("hours", ["0.002", "1e-3", " 2 ", "8784"])
    def test_a_duration_that_is_one(self, hours):
        assert load_settings({"duration_hours": hours}).duration_seconds == float(hours) * 3600

    def test_a_continuous_run_ends_only_where_a_duration_was_chosen(self, monkeypatch):
        assert load_settings({}).watching_seconds == math.inf
        assert load_settings({"duration_hours": "1"}).watching_seconds == 3600.0
        monkeypatch.setenv("GENESIS_DURATION_HOURS", "2")
        assert load_settings({}).watching_seconds == 7200.0

    def test_a_limit_is_given_in_milliseconds_and_there_is_none_without(self):
        assert load_settings({}).objective_limit_seconds == math.inf
        assert load_settings({"objective_limit_milliseconds": "5"}).objective_limit_seconds == 0.005

    def test_who_chose_in_the_environment_is_told_of_the_variable(self, monkeypatch):
        monkeypatch.setenv("GENESIS_DURATION_HOURS", "abc")
        with pytest.raises(UsageError, match="GENESIS_DURATION_HOURS is 'abc'") as refused:
            load_settings({})
        assert "--" not in refused.value.next_step

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("scale", "0"),
            ("level", "high"),
            ("objective", "median"),
            ("minimum_success_ratio", "1.01"),
            ("maximum_mean_milliseconds", "0"),
            ("memory_limit_bytes", "8GB"),
            ("retention_days", "0"),
            ("retention_days", "36501"),
            ("seed", "-1"),
            ("seed", str(2**32)),
            ("window_seconds", "nan"),
            ("window", " ; "),
            ("simulate", "perhaps"),
            ("trials", "0"),
        ],
    )
    def test_a_wrong_value_is_named_with_its_option(self, name, value):
        with pytest.raises(UsageError) as refused:
            load_settings({name: value})
        assert refused.value.what.startswith(f"--{name.replace('_', '-')} is {value!r}: must ")

    @pytest.mark.parametrize("seconds", ["0", "0.0004", "86401", "nan"])
    def test_a_timeout_that_postgresql_would_take_for_none_or_not_at_all(self, seconds):
        with pytest.raises(UsageError, match=f"--query-timeout is '{seconds}': must be "):
            load_settings({"query_timeout_seconds": seconds})

    @pytest.mark.parametrize(
        ("value", "names"), [("a", ("a",)), ("a,b", ("a", "b")), (" a , b,", ("a", "b")), (",", ())]
    )
    def test_names_in_the_environment_are_separated_by_commas(self, monkeypatch, value, names):
        monkeypatch.setenv("GENESIS_ALLOW_KNOB", value)
        assert load_settings({}).allow_knob == names

    def test_names_as_options_come_one_by_one(self):
        assert load_settings({"allow_knob": ["a", "b"]}).allow_knob == ("a", "b")


class TestHome:
    def test_the_environment_wins(self, tmp_path):
        home = resolve_home({"GENESIS_HOME": str(tmp_path), "XDG_STATE_HOME": "/elsewhere"}, tmp_path / "project")
        assert home == Home(tmp_path, tmp_path / "logs")

    def test_beside_the_project_it_lies_as_the_specification_says(self, tmp_path):
        assert resolve_home({"XDG_STATE_HOME": "/elsewhere"}, tmp_path) == Home(
            tmp_path / ".genesis", tmp_path / "logs"
        )

    def test_else_it_is_the_state_folder_of_the_desktop_standard(self, tmp_path, monkeypatch):
        assert resolve_home({"XDG_STATE_HOME": str(tmp_path)}, None).state == tmp_path / "genesis-pg"
        monkeypatch.setenv("HOME", str(tmp_path))
        assert resolve_home({}, None).state == tmp_path / ".local" / "state" / "genesis-pg"

    def test_a_relative_home_does_not_move_with_us(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert resolve_home({"GENESIS_HOME": "here"}, None).state == tmp_path / "here"

    def test_it_is_made_for_us_alone_and_left_without_traces(self, tmp_path):
        home = resolve_home({"GENESIS_HOME": str(tmp_path / "deep" / "home")}, None)
        home.prepare()
        home.prepare()
        assert home.state.stat().st_mode & 0o777 == 0o700
        assert [path.name for path in home.state.iterdir()] == ["logs"]
        assert list(home.logs.iterdir()) == []

    def test_studies_of_other_servers_are_found(self, tmp_path):
        home = Home(tmp_path, tmp_path / "logs")
        for server in ("1", "2", "3"):
            home.studies_of(server).mkdir(parents=True)
        home.of_server("4").mkdir()
        assert home.studies_of_others("2") == [home.studies_of("1"), home.studies_of("3")]

    def test_servers_do_not_share_a_folder(self, tmp_path):
        home = Home(tmp_path, tmp_path / "logs")
        assert home.of_server("1") != home.of_server("2")

    @pytest.mark.parametrize("where", ["home", "home/logs"])
    def test_a_file_in_its_place_is_told(self, tmp_path, where):
        path = tmp_path / where
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        with pytest.raises(StateError, match=str(path)):
            resolve_home({"GENESIS_HOME": str(tmp_path / "home")}, None).prepare()
        assert path.read_text() == "mine"


class TestLog:
    def lines(self, folder):
        return [json.loads(line) for line in (folder / LOG_NAME).read_text().splitlines()]

    def test_each_line_is_json_and_bound_to_its_run(self, tmp_path):
        for run in ("first", "second"):
            with open_log(tmp_path, run=run) as log:
                log.info("started", version="15.4")
        first, second = self.lines(tmp_path)
        assert (first["run"], second["run"]) == ("first", "second")
        assert (first["event"], first["level"], first["version"]) == ("started", "info", "15.4")
        assert first["timestamp"].endswith("Z")

    @pytest.mark.parametrize("key", ["password", "PGPASSWORD", "api_token", "client_secret"])
    def test_a_secret_is_blotted_out(self, tmp_path, key):
        with open_log(tmp_path, run="r") as log:
            log.info("connect", **{key: "sekret"})
        assert self.lines(tmp_path)[0][key] == "***"

    def test_a_traceback_is_kept(self, tmp_path):
        with open_log(tmp_path, run="r") as log:
            try:
                raise ValueError("what happened")
            except ValueError as error:
                log.error("defect", exc_info=error)
        assert "ValueError: what happened" in self.lines(tmp_path)[0]["exception"]

    def test_a_log_that_cannot_be_written_says_so_once_and_never_stops_the_work(self, tmp_path, capsys):
        (tmp_path / LOG_NAME).mkdir()
        with open_log(tmp_path, run="r") as log:
            log.info("one")
            log.info("two")
        assert capsys.readouterr().err.count("cannot be written any more") == 1
