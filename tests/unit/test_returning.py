"""What it takes to go back to a moment, worked out from the periods alone."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_postgres_optimization.interfaces.commands.online.returning import setbacks
from ml_postgres_optimization.target.postgres.repository import Period

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def course(*steps):
    """Return the periods of one setting, one a minute, of (value, brought by)."""
    return [
        Period("work_mem", value, "kB", NOON + timedelta(minutes=n), None, NOON, by)
        for n, (value, by) in enumerate(steps)
    ]


@pytest.mark.parametrize(
    ("steps", "live", "expected"),
    [
        pytest.param([("4", "first seen")], "4", None, id="nothing changed"),
        pytest.param([("4", "first seen"), ("8", "trial")], "8", ("4", None), id="ours"),
        pytest.param([("4", "first seen"), ("8", "somebody else")], "8", ("8", "8"), id="theirs"),
        pytest.param([("4", "first seen")], "8", ("8", "8"), id="theirs, not recorded yet"),
        pytest.param(
            [("4", "first seen"), ("6", "somebody else"), ("8", "trial")], "8", ("6", "6"), id="ours on theirs"
        ),
        pytest.param(
            [("4", "first seen"), ("8", "trial"), ("6", "somebody else")], "6", ("6", "6"), id="theirs on ours"
        ),
        pytest.param([("8", "trial"), ("4", "rollback")], "4", ("8", None), id="in force again"),
        pytest.param([("4", "trial"), ("8", "trial"), ("4", "rollback")], "4", None, id="there and back"),
        pytest.param(
            [("4", "trial"), ("8", "somebody else"), ("4", "somebody else")], "4", None, id="they went back"
        ),
    ],
)
def test_ours_is_taken_back_up_to_the_last_change_of_somebody_else(steps, live, expected):
    found = setbacks(course(*steps), NOON, {"work_mem": live})
    told = [(each.target, each.foreign.value if each.foreign else None) for each in found]
    assert told == ([expected] if expected else [])


def test_a_setting_that_was_not_known_by_then_is_left_alone():
    late = Period("late", "1", None, NOON + timedelta(minutes=1), None, NOON, "first seen")
    assert setbacks([late], NOON, {"late": "1"}) == []
