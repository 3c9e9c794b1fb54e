"""The command line, driven inside the test's own process: what it printed, and how it ended."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import optuna
import psycopg

from ml_postgres_optimization.interfaces.cli import app, classic
from ml_postgres_optimization.interfaces.cli.invocation import invoke

ROOT = Path(__file__).resolve().parents[2]
NAMES_A_SERVER = ("PG", "POSTGRES_", "GENESIS_")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        """The one JSON document on standard output; anything beside it fails to parse."""
        return json.loads(self.out)

    def is_refused(self, code, *fragments):
        """Check the exit code, and that the error is exactly two lines, which say all of `fragments`."""
        assert self.code == code, self
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) == 2 and all(lines), self.err
        missing = [fragment for fragment in fragments if fragment not in self.err]
        assert not missing, (missing, self.err)
        return self

    def done(self, *codes):
        """Check that it ended as it should, with nothing on standard error that looks like a bug."""
        assert self.code in (codes or (0,)), self
        assert "Traceback" not in self.err
        return self


class CommandLine:
    """Run ``genesis-pg`` and ``run.py`` with a home of their own."""

    def __init__(self, capsys, home, dsn=None):
        optuna.logging.disable_default_handler()
        self._capsys = capsys
        self.home = home
        self.dsn = dsn

    def __call__(self, *words):
        """Run ``genesis-pg``, on the server of `dsn` where there is one."""
        given = ("--dsn", self.dsn) if self.dsn and words and not words[0].startswith("-") else ()
        return self._run(app.app, (*words, *given), None, "genesis-pg")

    def classic(self, *words):
        """Run ``run.py``, likewise."""
        given = ("--dsn", self.dsn) if self.dsn else ()
        return self._run(classic.app, (*words, *given), ROOT, "run.py")

    def _run(self, which, words, root, program):
        self._capsys.readouterr()
        code = invoke(which, [str(word) for word in words], project_root=root, program=program)
        return Ended(code, *self._capsys.readouterr())


def clean_environment(monkeypatch, home):
    """Take away every variable that names a server, and set the home."""
    for name in [name for name in os.environ if name.startswith(NAMES_A_SERVER)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GENESIS_HOME", str(home))


def started(*words, home, **more):
    """Start ``run.py`` as a process of its own, in a process group of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(NAMES_A_SERVER)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words],
        env={**environ, "GENESIS_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def written_settings(dsn):
    """Return what ``postgresql.auto.conf`` says."""
    query = "SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf' ORDER BY seqno"
    return rows(dsn, query)


def rows(dsn, query, *parameters):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, parameters or None).fetchall()


def by_hand(dsn, *statements):
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
