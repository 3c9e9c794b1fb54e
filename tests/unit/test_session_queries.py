"""The SQL of sessions, capabilities, settings and the lock: every file is used, and says that it is ours."""

import re
from pathlib import Path

import pytest

from ml_postgres_optimization.target.postgres.queries import OLDEST_MAJOR, read_query

FOLDER = Path(__file__).parents[2] / "ml_postgres_optimization" / "target" / "postgres"
FILES = sorted(
    path for room in ("capabilities", "connection", "lock", "settings") for path in (FOLDER / "sql" / room).iterdir()
)
CODE = "".join(path.read_text() for path in FOLDER.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_file_is_used(path):
    match = re.fullmatch(r"(?P<name>[a-z_]+)(\.pg(?P<major>\d\d))?\.sql", path.name)
    name, major = match["name"], int(match["major"] or OLDEST_MAJOR)
    assert f'"{name}"' in CODE or f'"{path.parent.name}/{name}"' in CODE
    assert read_query(f"{path.parent.name}/{name}", major) == path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_query_says_that_it_is_ours(path):
    text = path.read_text()
    assert "/* genesis-pg */" in text or text.startswith(("ALTER SYSTEM ", "ALTER ROLE "))


def test_the_highest_suffix_that_is_not_above_the_server_is_taken():
    assert "pg_parameter_acl" not in read_query("capabilities/parameter_grants", 14)
    assert "pg_parameter_acl" in read_query("capabilities/parameter_grants", 15)
    assert "pg_parameter_acl" in read_query("capabilities/parameter_grants", 18)
