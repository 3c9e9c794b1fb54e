"""Write once what threads and tasks do: a generator of steps, and two ways to take them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

R = TypeVar("R")
Step = Callable[[], Any]
"""Something that is done, and may have to be awaited; its result is sent back, its failure thrown in."""


def take(steps: Generator[Step, Any, R]) -> R:
    """Take the steps in a thread, and return what the generator returns."""
    try:
        step = next(steps)
        while True:
            try:
                result = step()
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def take_async(steps: Generator[Step, Any, R]) -> R:
    """Take the steps in a task, and return what the generator returns."""
    try:
        step = next(steps)
        while True:
            try:
                result = step()
                if hasattr(result, "__await__"):
                    result = await result
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
