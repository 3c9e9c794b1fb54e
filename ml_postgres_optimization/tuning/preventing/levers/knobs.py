"""Levers that put another configuration in force for a while."""

from __future__ import annotations

from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.tuning.preventing.danger import Danger
from ml_postgres_optimization.tuning.preventing.foresight import LIMITED_CLASSES
from ml_postgres_optimization.tuning.preventing.levers.lever import Offer, Sight

_OUT_OF_MEMORY = "53200"
_SHORT_OF_MEMORY_RATIO = 0.1
_LEAST_WORK_MEM_KIB = 1024
_STORM_PER_SECOND = 1 / 120  # a checkpoint that the volume of WAL forces every two minutes, or more often
_MIB = 1 << 20


class FewerAtOnce:
    """Let fewer operations of our own load run at once; where the sessions are not ours, advise a smaller pool."""

    name = "concurrency"

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return what the forest finds without danger, else half of what runs now."""
        if danger.error_class not in LIMITED_CLASSES:
            return None
        now = sight.number(CONCURRENCY)
        if now is None:
            return self._advice(sight)
        limit = self._limit(danger, sight, int(now))
        if limit >= now:
            return None
        return Offer(self.name, f"{limit} operations at once instead of {now:.0f}", {CONCURRENCY: limit})

    def _limit(self, danger: Danger, sight: Sight, now: int) -> int:
        half = max(1, now // 2)
        foresight = sight.foresight
        if foresight is None or danger.error_class not in foresight.trusted:
            return half
        return foresight.fewer(sight.threshold, now=now)

    def _advice(self, sight: Sight) -> Offer | None:
        connections = sight.window.gauges.get("activity.connections")
        if connections is None or connections < 2:
            return None
        size = max(1, round(connections / 2))
        deed = f"let the application's pools open {size} connections in all, not {connections:.0f}, until it is over"
        return Offer(self.name, deed)


class LessMemory:
    """Let each query take less memory, where memory is what runs out."""

    name = "memory"

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return half of `work_mem`, and no more of it for hashes than for sorts."""
        if danger.error_class is not ErrorClass.RESOURCES or not _is_short_of_memory(sight):
            return None
        values: dict[str, KnobValue] = {}
        work_mem, multiplier = sight.number("work_mem"), sight.number("hash_mem_multiplier")
        if work_mem is not None and work_mem >= 2 * _LEAST_WORK_MEM_KIB:
            values["work_mem"] = int(work_mem / 2)
        if multiplier is not None and multiplier > 1:
            values["hash_mem_multiplier"] = 1.0
        if not values:
            return Offer(self.name, "memory runs out: lower work_mem, or let fewer sessions in")
        return Offer(self.name, f"less memory for each query ({', '.join(values)})", values)


def _is_short_of_memory(sight: Sight) -> bool:
    available = sight.window.gauges.get("host.memory_available_bytes")
    limit = sight.machine.memory_limit_bytes
    is_low = available is not None and available < _SHORT_OF_MEMORY_RATIO * limit
    return is_low or sight.window.errors_before_retries.get(_OUT_OF_MEMORY, 0) > 0


class LargerWal:
    """Let checkpoints come less often, where the volume of WAL forces them; the guard knows the disk."""

    name = "checkpoints"

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return twice `max_wal_size`, against time-outs in a storm of checkpoints."""
        requested = sight.window.rates.get("checkpointer.requested_checkpoints_per_second", 0.0)
        if danger.error_class is not ErrorClass.TIMEOUT or requested < _STORM_PER_SECOND:
            return None
        now = sight.number("max_wal_size")
        largest = sight.catalogue["max_wal_size"].maximum if now is not None else None
        wanted = 2 * (now or 0.0) if largest is None else min(largest, 2 * (now or 0.0))
        if now is None or wanted <= now:
            return Offer(self.name, "checkpoints are forced by the volume of WAL: raise max_wal_size")
        return Offer(
            self.name, f"max_wal_size of {wanted:.0f} MB against forced checkpoints", {"max_wal_size": int(wanted)}
        )
