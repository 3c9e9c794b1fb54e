"""`tune` on a server whose settings are not ours to change: said before anything is made."""

import pytest
from command_line import CommandLine, clean_environment, rows, written_settings
from hand_started import PATRONI, started_with


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    return CommandLine(capsys, tmp_path / "home")


def test_what_the_command_line_of_the_server_sets_is_left_out_and_said(cli, own_server):
    with started_with(own_server, {"work_mem": "5MB"}) as cli.dsn:
        document = cli("tune", "--workload", "tpcb", "--dry-run", "--json").done().document
    assert "command line" in document["left_out"]["work_mem"]
    assert "work_mem" not in document["knobs"]


def test_a_server_that_patroni_manages_is_refused_and_nothing_is_made(cli, own_server):
    with started_with(own_server, PATRONI) as cli.dsn:
        nothing_is_made(cli, "Patroni manages this server's configuration")


@pytest.mark.pg(">= 17")
def test_a_server_without_alter_system_is_refused_and_nothing_is_made(cli, own_server):
    own_server.restart({"allow_alter_system": "off"})
    cli.dsn = own_server.dsn
    nothing_is_made(cli, "ALTER SYSTEM is switched off on this server (allow_alter_system = off)")


def nothing_is_made(cli, said):
    """Check that tuning is refused before it makes its tables."""
    cli("setup").done()
    before = written_settings(cli.dsn)
    cli("tune", "--simulate", "--workload", "tpcb", "--scale", "1").is_refused(3, said)
    assert written_settings(cli.dsn) == before
    assert rows(cli.dsn, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'pgbench%'") == [(0,)]
