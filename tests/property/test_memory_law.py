"""More of anything never takes less memory."""

from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.knobs.memory import predicted_peak_bytes

RANGES = {
    "shared_buffers": (16, 1 << 27),
    "wal_buffers": (4, 1 << 17),
    "max_connections": (1, 10_000),
    "work_mem": (64, 1 << 26),
    "hash_mem_multiplier": (1.0, 1000.0),
    "max_parallel_workers_per_gather": (0, 64),
    "max_parallel_workers": (0, 64),
    "max_worker_processes": (0, 64),
    "maintenance_work_mem": (1024, 1 << 26),
    "autovacuum_work_mem": (1024, 1 << 26),
    "autovacuum_max_workers": (1, 64),
    "temp_buffers": (100, 1 << 20),
    "client.concurrency": (1, 1000),
}


def value_of(name):
    low, high = RANGES[name]
    return st.floats(low, high) if isinstance(low, float) else st.integers(low, high)


@given(
    values=st.fixed_dictionaries({}, optional={name: value_of(name) for name in RANGES}),
    name=st.sampled_from(sorted(RANGES)),
    data=st.data(),
)
def test_the_prediction_grows_with_every_knob(values, name, data):
    first, second = sorted((data.draw(value_of(name)), data.draw(value_of(name))))
    less = predicted_peak_bytes({**values, name: first})
    more = predicted_peak_bytes({**values, name: second})
    assert less.total_bytes <= more.total_bytes
    assert all(less.parts[part] <= more.parts[part] for part in less.parts)


@given(
    values=st.fixed_dictionaries({}, optional={name: value_of(name) for name in RANGES}),
    fewer=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    added=st.tuples(st.integers(0, 500), st.integers(0, 500)),
)
def test_the_prediction_grows_with_the_sessions(values, fewer, added):
    less = predicted_peak_bytes(values, connections=fewer[0], active=fewer[1])
    more = predicted_peak_bytes(values, connections=fewer[0] + added[0], active=fewer[1] + added[1])
    assert less.total_bytes <= more.total_bytes
