"""How many repetitions all callers together may add to a server's load."""

from __future__ import annotations

import threading

from ml_postgres_optimization.errors import UsageError


class RetryBudget:
    """An account that every call pays into, and every repetition is paid from.

    Parameters
    ----------
    ratio : float
        Repetitions per call, 0 to 1.
    reserve : float
        Repetitions that are there from the start, and the most that can be saved up.

    Notes
    -----
    A repetition is paid for when its wait begins, not when it is sent: else all those that wait would pass together
    when the wait is over. Thread safe.

    References
    ----------
    Envoy issue 30205 for charging at the wait; Google, "Site Reliability Engineering", chapter 21, for 10 %.

    Examples
    --------
    >>> budget = RetryBudget(ratio=0.1, reserve=1)
    >>> budget.pay(), budget.pay()
    (True, False)
    >>> for _ in range(10):
    ...     budget.earn()
    >>> budget.pay()
    True
    """

    def __init__(self, *, ratio: float = 0.1, reserve: float = 10.0) -> None:
        if not (0.0 <= ratio <= 1.0 and reserve >= 0.0):
            raise UsageError(
                f"A budget of {ratio!r} repetitions a call with a reserve of {reserve!r} is none.",
                "Give a ratio from 0 to 1, and a reserve of 0 or more.",
            )
        self._ratio = ratio
        self._reserve = reserve
        self._balance = reserve
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Take what a call brings."""
        if self._balance >= self._reserve:
            return  # the usual case, which needs no lock: at worst a tenth is not earned
        with self._lock:
            self._balance = min(self._reserve, self._balance + self._ratio)

    def pay(self) -> bool:
        """Pay for a repetition, and tell whether there was enough."""
        with self._lock:
            # ten times 0.1 is a little less than 1
            if self._balance < 1.0 - 1e-9:
                return False
            self._balance -= 1.0
            return True
