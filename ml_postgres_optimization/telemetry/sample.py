"""One timed operation, and many of them in columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LatencySample:
    """One operation, timed from when it *should* have started.

    Times are monotonic seconds (`Clock.monotonic_seconds`). Measuring from the intended start is what keeps
    a stall from hiding behind the requests that it held back (coordinated omission).

    Parameters
    ----------
    kind : str
        Kind of operation, ``read`` for one.
    intended_start_seconds, start_seconds, end_seconds : float
        When the schedule wanted it, when it was sent, when it was answered.
    sqlstate : str or None
        SQLSTATE of the failure (``08000`` where a driver gave none), None for success.
    """

    kind: str
    intended_start_seconds: float
    start_seconds: float
    end_seconds: float
    sqlstate: str | None = None

    @property
    def response_seconds(self) -> float:
        """What the user waited: from the intended start to the end."""
        return self.end_seconds - self.intended_start_seconds

    @property
    def service_seconds(self) -> float:
        """What the server took: from the actual start to the end."""
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Many samples as columns of one length: what the load generator hands over several times a second.

    Parameters
    ----------
    kinds : tuple of str
        Names that `kind_index` points into.
    kind_index : ndarray of uint8, shape (n_samples,)
    intended_start_seconds, start_seconds, end_seconds : ndarray of float64, shape (n_samples,)
    sqlstate : ndarray of bytes (S5), shape (n_samples,)
        Empty for success.
    lag_seconds : ndarray of float64, shape (n_samples,)
        How late the *scheduler* was in noticing that the operation was due; queueing is not part of it.
    skipped_total : int
        Operations that were due and never started (queue bound, or the end of the run).
    due_total : int or None
        Operations that came due meanwhile, whether they have ended or not. None where nobody counted them: then those
        in the batch are all that is known.
    since_seconds, until_seconds : float
        The stretch of monotonic time in which that was counted; minus infinity where it is not known: then the
        recorder takes the time since it last asked.
    complete_until_seconds : float
        Of what ended until then, the source hands over no more; infinity for a source that is never behind.
    arm : str
        Of a concurrent trial: the one whose sessions ran them all; empty where nobody is divided.
    ambiguous : ndarray of bool, shape (n_samples,)
        Whether an operation that failed may have been committed all the same; empty where none may.
    retried : mapping of str to int
        Attempts that failed and were followed by another one, by SQLSTATE; each sample is an operation with the
        outcome of its last attempt.
    """

    kinds: tuple[str, ...]
    kind_index: NDArray[np.uint8]
    intended_start_seconds: Floats
    start_seconds: Floats
    end_seconds: Floats
    sqlstate: NDArray[np.bytes_]
    lag_seconds: Floats = field(default_factory=lambda: np.empty(0))
    skipped_total: int = 0
    due_total: int | None = None
    since_seconds: float = -math.inf
    until_seconds: float = -math.inf
    complete_until_seconds: float = math.inf
    arm: str = ""
    ambiguous: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    retried: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.kind_index)

    @classmethod
    def of(cls, samples: Sequence[LatencySample], *, skipped_total: int = 0) -> SampleBatch:
        """Put single samples into columns."""
        kinds = tuple(sorted({sample.kind for sample in samples}))
        return cls(
            kinds=kinds,
            kind_index=np.array([kinds.index(sample.kind) for sample in samples], dtype=np.uint8),
            intended_start_seconds=np.array([sample.intended_start_seconds for sample in samples]),
            start_seconds=np.array([sample.start_seconds for sample in samples]),
            end_seconds=np.array([sample.end_seconds for sample in samples]),
            sqlstate=np.array([(sample.sqlstate or "").encode() for sample in samples], dtype="S5"),
            skipped_total=skipped_total,
        )

    def samples(self) -> Iterator[LatencySample]:
        """Yield the samples one by one."""
        for row, kind in enumerate(self.kind_index):
            yield LatencySample(
                kind=self.kinds[kind],
                intended_start_seconds=float(self.intended_start_seconds[row]),
                start_seconds=float(self.start_seconds[row]),
                end_seconds=float(self.end_seconds[row]),
                sqlstate=self.sqlstate[row].decode() or None,
            )

    def split(self, at_seconds: float) -> tuple[SampleBatch, SampleBatch]:
        """Cut in two: what ended until a monotonic time, that time included, and what ended later.

        When an operation was skipped, came due or was tried again is not known one by one: the counts are divided as
        the time is.
        """
        is_earlier = self.end_seconds <= at_seconds
        ratio = self._ratio_until(at_seconds)
        # nearly every batch lies on one side whole, and is not copied
        if ratio == 1.0 and is_earlier.all():
            return self, self._nothing()
        if ratio == 0.0 and not is_earlier.any():
            return self._nothing(), self
        skipped = round(self.skipped_total * ratio)
        due = self.due_total and round(self.due_total * ratio)
        later_due = self.due_total and self.due_total - (due or 0)
        retried = {code: round(count * ratio) for code, count in self.retried.items()}
        later_retried = {code: count - retried[code] for code, count in self.retried.items()}
        return (
            self._rows(is_earlier, skipped_total=skipped, due_total=due, retried=retried),
            self._rows(
                ~is_earlier, skipped_total=self.skipped_total - skipped, due_total=later_due, retried=later_retried
            ),
        )

    @property
    def ambiguous_total(self) -> int:
        """Operations that failed and may have been committed all the same."""
        return int(np.count_nonzero(self.ambiguous))

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not (len(self) or self.skipped_total or self.due_total or self.retried)

    def _ratio_until(self, at_seconds: float) -> float:
        """Return the share of the batch's time that was over then."""
        if self.since_seconds < at_seconds < self.until_seconds:
            return (at_seconds - self.since_seconds) / (self.until_seconds - self.since_seconds)
        return float(at_seconds >= self.until_seconds)

    def _nothing(self) -> SampleBatch:
        none = np.zeros(len(self), dtype=np.bool_)
        return self._rows(none, skipped_total=0, due_total=self.due_total and 0, retried={})

    def _rows(
        self, chosen: NDArray[np.bool_], *, skipped_total: int, due_total: int | None, retried: Mapping[str, int]
    ) -> SampleBatch:
        return replace(
            self,
            kind_index=self.kind_index[chosen],
            intended_start_seconds=self.intended_start_seconds[chosen],
            start_seconds=self.start_seconds[chosen],
            end_seconds=self.end_seconds[chosen],
            sqlstate=self.sqlstate[chosen],
            # there is none where no clock makes operations due
            lag_seconds=self.lag_seconds[chosen] if self.lag_seconds.size else self.lag_seconds,
            skipped_total=skipped_total,
            due_total=due_total,
            ambiguous=self.ambiguous[chosen] if self.ambiguous.size else self.ambiguous,
            retried={code: count for code, count in retried.items() if count},
        )
