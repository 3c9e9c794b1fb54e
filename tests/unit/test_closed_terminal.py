"""What goes on when its terminal is closed: whatever tests for hours; what only optimises is put back."""

import signal

import pytest
from typer.testing import CliRunner

from ml_postgres_optimization.interfaces.cli import classic


@pytest.mark.parametrize(("mode", "goes_on"), [("setup", False), ("optimize", False), ("test", True), ("all", True)])
def test_a_closed_terminal_ends_no_mode_that_tests(monkeypatch, mode, goes_on):
    during = []
    monkeypatch.setattr(classic, "run", lambda *_, **__: during.append(signal.getsignal(signal.SIGHUP)))
    before = signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        CliRunner().invoke(classic.app, ["--mode", mode], catch_exceptions=False)
        assert signal.getsignal(signal.SIGHUP) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (during == [signal.SIG_IGN]) == goes_on
