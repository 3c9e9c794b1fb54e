"""Of two optimisers that start at the same moment, exactly one runs; 100 pairs: benchmarks/two_optimisers.py."""

import pytest
from two_optimisers import PLACES, is_right, pair


@pytest.mark.parametrize("number", [0, 2, 12])
def test_exactly_one_runs(server, tmp_path, number):
    came = pair(server.dsn, tmp_path, number)
    assert came["place"] in PLACES and is_right(came), came
