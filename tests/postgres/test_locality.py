"""Whether a server runs here is proved by its processes."""

from pathlib import Path

import psycopg
import pytest

from ml_postgres_optimization.target.host import data_directory_if_local, postmaster_pid_if_local
from ml_postgres_optimization.target.host import locality as locality_module


@pytest.fixture
def connection(server):
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        yield connection


def test_a_server_of_this_machine_is_found_with_its_data(connection, server):
    pid = int((server.data_directory / "postmaster.pid").read_text().splitlines()[0])
    assert postmaster_pid_if_local(connection) == pid
    assert data_directory_if_local(connection) == server.data_directory


def test_a_role_that_may_not_know_the_folder_still_knows_the_machine(owner, server):
    with psycopg.connect(owner, autocommit=True) as connection:
        assert postmaster_pid_if_local(connection) is not None
        assert data_directory_if_local(connection) is None


@pytest.mark.parametrize(
    "change", [{"backend_pid": 2**22 + 1}, {"backend_start_seconds": 1.0e9}, {"backend_start_seconds": None}]
)
def test_a_server_whose_process_is_not_seen_here_is_remote(connection, monkeypatch, change):
    found = locality_module._read_session(connection)
    elsewhere = {
        "backend_pid": found.backend_pid,
        "backend_start_seconds": found.backend_start_seconds,
        "data_directory": found.data_directory,
    } | change
    monkeypatch.setattr(locality_module, "_read_session", lambda _: locality_module._Session(**elsewhere))
    assert postmaster_pid_if_local(connection) is None
    assert data_directory_if_local(connection) is None


@pytest.mark.parametrize("text", [None, "", "1\n/elsewhere\n", "no number\n"])
def test_a_folder_that_belongs_to_another_server_is_not_taken(connection, monkeypatch, tmp_path, text):
    if text is not None:
        (tmp_path / "postmaster.pid").write_text(text)
    found = locality_module._read_session(connection)
    other = locality_module._Session(found.backend_pid, found.backend_start_seconds, str(tmp_path))
    monkeypatch.setattr(locality_module, "_read_session", lambda _: other)
    assert data_directory_if_local(connection) is None


def test_a_folder_that_is_gone_is_not_taken(connection, monkeypatch):
    found = locality_module._read_session(connection)
    gone = locality_module._Session(found.backend_pid, found.backend_start_seconds, str(Path("/nowhere/at/all")))
    monkeypatch.setattr(locality_module, "_read_session", lambda _: gone)
    assert data_directory_if_local(connection) is None
