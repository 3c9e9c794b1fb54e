"""The law of the circuit: a probe is ended by its own prober, by a success, or by silence, whoever else reports."""

from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.retry import Circuit, CircuitBreaker
from ml_postgres_optimization.telemetry import VirtualClock

PROBE_SECONDS = 30.0
CALLS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["ask", "failed", "gave_up", "succeeded"]), CALLS),
    st.tuples(st.just("sleep"), st.sampled_from([0.5, 2.0, 40.0])),
)


@given(st.lists(STEPS, min_size=10, max_size=60))
def test_only_the_prober_or_a_success_ends_a_probe(steps):
    clock, calls = VirtualClock(), [object() for _ in range(4)]
    breaker = CircuitBreaker(
        failures=2, base_seconds=1.0, probe_seconds=PROBE_SECONDS, monotonic_seconds=clock.monotonic_seconds
    )
    prober, probed_at = None, 0.0
    for what, whose in [("failed", 0), ("failed", 0), ("sleep", 2.0), *steps]:
        before = breaker.state
        if what == "sleep":
            clock.sleep(whose)
        elif what == "ask":
            goes = breaker.ask(calls[whose]) == 0.0
            assert goes or before is not Circuit.CLOSED
            if goes and before is not Circuit.CLOSED:
                is_lost = clock.monotonic_seconds() - probed_at >= PROBE_SECONDS
                assert before is Circuit.OPEN or is_lost, "one probe at a time"
                prober, probed_at = whose, clock.monotonic_seconds()
        elif what == "succeeded":
            breaker.succeeded()
            assert breaker.state is Circuit.CLOSED, "a server that answers is there"
        else:
            getattr(breaker, what)(calls[whose])
            if before is Circuit.PROBING:
                assert breaker.state is (Circuit.OPEN if whose == prober else Circuit.PROBING)
            elif what == "gave_up":
                assert breaker.state is before
