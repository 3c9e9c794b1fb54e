"""No machine is ever given a configuration that it cannot hold."""

from dataclasses import replace

from hypothesis import event, given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.memory import MEMORY_SHARE, allowed_bytes, predicted_peak_bytes
from ml_postgres_optimization.safety.constraints import Circumstances, review
from ml_postgres_optimization.target.capabilities import Capabilities

INT_MAX = 2147483647
STOCK = {
    setting.name: setting
    for setting in (
        Setting("work_mem", 4096, "integer", "kB", "user", "default", 64, INT_MAX),
        Setting("hash_mem_multiplier", 2.0, "real", None, "user", "default", 1, 1000),
        Setting("maintenance_work_mem", 65536, "integer", "kB", "user", "default", 1024, INT_MAX),
        Setting("autovacuum_work_mem", -1, "integer", "kB", "sighup", "default", -1, INT_MAX),
        Setting("autovacuum_max_workers", 3, "integer", None, "sighup", "default", 1, 262143),
        Setting("max_parallel_workers", 8, "integer", None, "user", "default", 0, 1024),
        Setting("max_parallel_workers_per_gather", 2, "integer", None, "user", "default", 0, 1024),
        Setting("max_worker_processes", 64, "integer", None, "postmaster", "default", 0, 262143),
        Setting("max_connections", 100, "integer", None, "postmaster", "configuration file", 1, 262143),
        Setting("shared_buffers", 16384, "integer", "8kB", "postmaster", "configuration file", 16, 1073741823),
        Setting("temp_buffers", 1024, "integer", "8kB", "user", "default", 100, 1073741823),
    )
}
# Exponents of two: a little beyond the range on either side.
KNOBS = {
    "work_mem": (9.8, 20.2),
    "hash_mem_multiplier": (-0.1, 3.1),
    "maintenance_work_mem": (15.8, 22.2),
    "autovacuum_work_mem": (15.8, 21.2),
    "autovacuum_max_workers": (0.8, 3.4),
    "max_parallel_workers": (0, 6.1),
    "max_parallel_workers_per_gather": (0, 4.1),
    "client.concurrency": (0, 7.7),
}
ALMIGHTY = Capabilities(
    180004, "18.4", "1", "postgres", "tuner", may_alter_system=True, may_reload=True, settings_visible=True
)
WHOLE = load_catalogue()
CATALOGUE = WHOLE.without({name: "plays no part here" for name in WHOLE if name not in KNOBS})


STEPS = 64
SERVERS = st.fixed_dictionaries(
    {
        "max_connections": st.integers(10, 500),
        "shared_buffers": st.integers(16, 1 << 20),
        "work_mem": st.integers(64, 1 << 16),
    }
)
CONFIGURATIONS = st.fixed_dictionaries({}, optional={name: st.integers(0, STEPS) for name in KNOBS})


def server_with(changed):
    """Settings in force, somewhere between a small and a generous server."""
    return {**STOCK, **{name: replace(STOCK[name], value=value) for name, value in changed.items()}}


def configuration_of(steps):
    """Values at these steps of their ranges."""
    values = {}
    for name, step in steps.items():
        low, high = KNOBS[name]
        value = 2 ** (low + (high - low) * step / STEPS)
        values[name] = value if name == "hash_mem_multiplier" else int(value)
    return values


def reviewed(server, configuration, memory_ratio, cpus):
    """Review on a machine with so many times the memory that what is in force needs; return its limit and the peaks.

    Returns
    -------
    tuple of (bool, int, int, int)
        Whether it passed; the limit, the peak in force and the peak of the configuration, in bytes.
    """
    live = {name: setting.value for name, setting in server.items()}
    ours = {name: value for name, value in configuration.items() if name not in live}
    in_force = predicted_peak_bytes({**live, **ours}).total_bytes
    machine = Machine(int(in_force * memory_ratio / MEMORY_SHARE) + 1, "RAM", cpus=cpus, is_local=True)
    try:
        review(configuration, Circumstances(CATALOGUE.confront(server, 18, machine), server, machine, ALMIGHTY))
        passed = True
    except ChangeRefused as refused:
        event(f"refused: {refused.what.partition(' = ')[0][:15]}")
        passed = False
    return passed, allowed_bytes(machine), in_force, predicted_peak_bytes({**live, **configuration}).total_bytes


@settings(max_examples=2000)
@given(SERVERS, CONFIGURATIONS, st.integers(0, 5 * STEPS), st.integers(1, 64))
def test_nothing_passes_that_is_predicted_to_need_more_than_four_fifths_of_the_memory(
    changed, steps, doublings, cpus
):
    configuration = configuration_of(steps)
    passed, limit, _, peak = reviewed(server_with(changed), configuration, 2 ** (doublings / STEPS), cpus)
    event(f"{'passed' if passed else 'refused'}, {'within' if peak <= limit else 'beyond'} the limit")
    assert peak <= limit or not passed


@settings(max_examples=200)
@given(SERVERS, CONFIGURATIONS, st.integers(20, 99))
def test_a_server_that_is_beyond_its_memory_is_never_taken_further(changed, steps, percent):
    passed, limit, in_force, peak = reviewed(server_with(changed), configuration_of(steps), percent / 100, 8)
    assert peak <= max(limit, in_force) or not passed
