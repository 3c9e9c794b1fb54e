"""Shapes of the offered load: bounded, drawn again from a seed, sent to another process, read from a file."""

import pickle

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.shapes import SHAPES, read_shape, shape_named

DAY = 86_400.0


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_bounded_and_the_same_in_every_process(name):
    shape = shape_named(name, duration_seconds=DAY, seed=7)
    moments = [0.0, 1.0, DAY / 7, DAY / 2, DAY - 1, 3 * DAY]
    factors = [shape(at) for at in moments]
    assert all(0.0 < factor <= 2.0 for factor in factors)
    again = pickle.loads(pickle.dumps(shape_named(name, duration_seconds=DAY, seed=7)))
    assert [again(at) for at in reversed(moments)] == factors[::-1]
    if name != "constant":
        assert len({shape(at) for at in range(0, int(DAY), 60)}) > 1


def test_a_walk_and_bursts_depend_on_the_seed():
    for name in ("walk", "bursts"):
        one, other = (shape_named(name, duration_seconds=DAY, seed=seed) for seed in (1, 2))
        assert [one(at) for at in range(0, 80_000, 10)] != [other(at) for at in range(0, 80_000, 10)]


def test_a_day_is_lowest_at_its_ends():
    day = shape_named("daily", duration_seconds=3 * DAY, seed=1)
    assert (day(0.0), day(DAY / 2), day(DAY)) == pytest.approx((0.2, 1.0, 0.2))


def test_a_recorded_shape_is_played_with_lines_between_and_begun_again(tmp_path):
    path = tmp_path / "shape.csv"
    path.write_text("seconds,factor\n0,1\n10,3\n20,1\n")
    shape = shape_named(str(path), duration_seconds=DAY, seed=1)
    assert [shape(at) for at in (0.0, 5.0, 10.0, 15.0, 25.0)] == pytest.approx([1, 2, 3, 2, 2])


@pytest.mark.parametrize("text", ["", "0,1\n", "0,1\n0,2\n", "0,1\n5,-1\n", "0,1\n5,nan\n", "0,1\nx,2\n", "0,1\n5\n"])
def test_a_file_that_holds_no_shape_is_refused(tmp_path, text):
    path = tmp_path / "shape.csv"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_shape(path)


def test_a_shape_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="neither known nor a file"):
        shape_named("sideways", duration_seconds=DAY, seed=1)
