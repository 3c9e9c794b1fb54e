"""What operations a load consists of, whoever wrote them."""

from __future__ import annotations

from typing import Protocol


class Mix(Protocol):
    """Kinds of operations, and how often each comes; a value that can be sent to another process."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every kind, as samples call it."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each kind; they add up to one."""

    @property
    def read_only(self) -> frozenset[str]:
        """The kinds that write nothing, so that doing them twice does no harm."""

    @property
    def transactional(self) -> frozenset[str]:
        """The kinds that are one transaction, which as a whole is done or not."""

    @property
    def deck(self) -> tuple[int, ...]:
        """Positions in `names`, of one round of a closed loop, whose kinds are dealt out of a shuffled deck.

        Empty where kinds are drawn one by one. A round has each kind as often as it should come, so that two blocks
        of a few rounds differ less: where one query takes 100 times as long as another, chance would decide
        otherwise.
        """
