"""An occasion: a danger that was foretold, what was done about it, and what happened then."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.retry.classification import ErrorClass
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
    is_whole: bool = False


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
