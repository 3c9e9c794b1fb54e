"""Who waits for a lock that is held for an unknown time has an answer within twice that time, or none at all."""

import math
import random
import statistics

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.retry import Phase, RetryBudget, RetryPolicy
from ml_postgres_optimization.retry.backoff import full_jitter_seconds, lock_wait_seconds
from ml_postgres_optimization.retry.calling import Course, Terms

POLICY = RetryPolicy()
PAUSE = {"base_seconds": POLICY.lock.base_seconds, "cap_seconds": POLICY.lock.cap_seconds}


class Call:
    """One call of the library, in virtual time, that needs a lock which others hold until some time."""

    def __init__(self):
        self.now = 0.0
        self.course = Course("a call", Terms(POLICY, RetryBudget(reserve=100), monotonic_seconds=lambda: self.now))

    def answered(self, held_seconds, lock_timeout_seconds):
        """Return when it has the lock; None where there is no other attempt."""
        while True:
            self.now += self.course.back_off_seconds()
            self.course.attempts += 1
            if held_seconds <= self.now + lock_timeout_seconds:
                return max(self.now, held_seconds)
            self.now += lock_timeout_seconds
            if not self.course.failed(psycopg.errors.LockNotAvailable(), Phase.IN_TRANSACTION, has_committed=False):
                return None


@given(
    held=st.floats(0.001, 60.0),
    lock_timeout=st.floats(0.011, 5.0),
)
def test_the_answer_comes_within_twice_the_time_for_which_the_lock_was_held(held, lock_timeout):
    answered = Call().answered(held, lock_timeout)
    assert answered is None or held <= answered <= 2.0 * held + 1e-9


@given(
    attempt=st.integers(1, 100),
    elapsed=st.floats(0.0, 100.0),
    seed=st.integers(0, 99),
)
def test_a_wait_is_never_longer_than_the_doubled_base_nor_than_what_was_waited(attempt, elapsed, seed):
    wait = lock_wait_seconds(attempt, **PAUSE, elapsed_seconds=elapsed, draw=random.Random(seed))
    ceiling = min(PAUSE["cap_seconds"], PAUSE["base_seconds"] * 2.0 ** (attempt - 1), elapsed)
    assert ceiling / 2 <= wait <= ceiling


def test_who_has_not_queued_waits_as_before():
    """NOWAIT tells nothing of how long the lock is held: as many attempts must last as long as they did."""
    random.seed(1)
    waits = []
    for _ in range(300):
        call = Call()
        assert call.answered(1e9, 0.001) is None
        waits.append(call.now)
    assert statistics.fmean(waits) == pytest.approx(sum(PAUSE["base_seconds"] * 2**k / 2 for k in range(4)), rel=0.1)


@pytest.mark.parametrize(("lock_timeout", "longest"), [(0.05, 1.0), (0.2, 2.0), (2.0, 10.0)])
def test_of_locks_of_any_length_it_answers_sooner_and_fails_seldomer_than_full_jitter(
    lock_timeout, longest, monkeypatch
):
    ours = _seen(lock_timeout, longest)
    monkeypatch.setattr(
        "ml_postgres_optimization.retry.calling.course.lock_wait_seconds",
        lambda attempt, elapsed_seconds, **pause: full_jitter_seconds(attempt, **pause),
    )
    theirs = _seen(lock_timeout, longest)
    print(f"limit {lock_timeout:g} s: ours {ours}, full jitter {theirs}")
    assert ours[1] < theirs[1] and ours[2] <= theirs[2]
    assert ours[0] < 1.03 * theirs[0]
    if lock_timeout < PAUSE["base_seconds"]:
        assert ours[0] < 0.96 * theirs[0]


def _seen(lock_timeout, longest):
    """Return mean and greatest ratio of answer to lock, and the share without an answer."""
    random.seed(5)
    draw = random.Random(7)
    held = [math.exp(draw.uniform(math.log(lock_timeout), math.log(longest))) for _ in range(4_000)]
    answers = [Call().answered(one, lock_timeout) for one in held]
    ratios = [answer / one for answer, one in zip(answers, held, strict=True) if answer is not None]
    return statistics.fmean(ratios), max(ratios), answers.count(None) / len(answers)
