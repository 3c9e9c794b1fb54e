"""An occasion: a danger that was foretold, what was done about it, and what happened then."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.preventing.danger import Danger

_BLOCK = 5


class Choice(StrEnum):
    """What becomes of an occasion."""

    ACTED = "acted"
    HELD_OUT = "held out"
    ADVISED = "advised"


@dataclass(frozen=True, slots=True)
class Occasion:
    """A danger that rose, and what came of it.

    Parameters
    ----------
    id : str
        Sorts by time; that of the journal where settings of the server were changed.
    began_at : datetime
    danger : Danger
    threshold : float
        That its probability had reached.
    choice : Choice
    lever : str
        Name of the lever that was pulled, held out or advised.
    deed : str
        What was or would have been done, or the advice.
    before, after : Configuration or None
        In force before, and by the lever; `after` is None where it is no change of a configuration.
    ended_at : datetime or None
    ending : str
        Why the lever was let go, or why it could not be pulled.
    windows, operations, errors : int
        Seen in the horizon after `began_at`, alike whether it was acted on or held out; errors are of its class.
    response_seconds : float
        Sum of the response times of these operations.
    due, undone : float
        Operations that were to be done in the horizon, and those of them that were not; below 0 where more were done
        than before (`Demand`).
    is_whole : bool
        Whether the horizon was seen to its end, with all that counts in it: only then it tells something.
    """

    id: str
    began_at: datetime
    danger: Danger
    threshold: float
    choice: Choice
    lever: str
    deed: str
    before: Configuration
    after: Configuration | None = None
    ended_at: datetime | None = None
    ending: str = ""
    windows: int = 0
    operations: int = 0
    errors: int = 0
    response_seconds: float = 0.0
    due: float = 0.0
    undone: float = 0.0
    is_whole: bool = False


class Demand:
    """How much work there is to do in a window, and how much of it was done, whoever does it.

    What comes due in our own open loop is counted. In a closed loop, and of sessions that are not ours, nobody knows:
    there it is as much as in the windows before the occasion, which err alike for one that is held out.

    Parameters
    ----------
    windows : int
        How many windows before an occasion are the measure.
    """

    def __init__(self, windows: int) -> None:
        self._per_second: deque[float] = deque(maxlen=windows)

    def see(self, window: Window, *, is_ours: bool) -> None:
        """Take a window in which no occasion was open."""
        done = _done(window, is_ours=is_ours)
        if math.isfinite(done) and window.duration_seconds > 0:
            self._per_second.append(done / window.duration_seconds)

    def of(self, window: Window, *, is_ours: bool) -> tuple[float, float]:
        """Return what was to be done in a window of an occasion, and what was: operations, both 0 where unknown."""
        done = _done(window, is_ours=is_ours)
        if is_ours and window.labels.get("loop") != "closed":
            return float(window.due_total), done
        if not self._per_second or not math.isfinite(done):
            return 0.0, 0.0
        return sum(self._per_second) / len(self._per_second) * window.duration_seconds, done


def _done(window: Window, *, is_ours: bool) -> float:
    """Return what succeeded: of our own load operations, else transactions; NaN where nobody counted them."""
    if is_ours:
        return float(window.operations_total - window.failed_total)
    return window.rates.get("database.commits_per_second", math.nan) * window.duration_seconds


Subscriber = Callable[[Occasion, str], None]
"""Takes an occasion as it is now, and a sentence for the user."""


class HoldOut:
    """Draw which occasions are held out: of every five of a class one, at a place in them that is drawn by lot.

    An exact share, of each class by itself, compares more with fewer occasions than a coin for each would. Nobody can
    steer by it: whether there is an occasion, the forecast says before the lot is drawn.

    Parameters
    ----------
    rng : random.Random
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left: dict[ErrorClass, list[bool]] = {}

    def draw(self, error_class: ErrorClass) -> Choice:
        """Return whether the next occasion of a class is acted on or held out."""
        left = self._left.setdefault(error_class, [])
        if not left:
            left.extend([True] + [False] * (_BLOCK - 1))
            self._rng.shuffle(left)
        return Choice.HELD_OUT if left.pop() else Choice.ACTED
