"""What has to hold of any measure by which evidence is compared."""

from __future__ import annotations

import itertools
from typing import Any, Protocol


class Strength(Protocol):
    """How strong evidence is, by what it set out to do."""

    @property
    def rank(self) -> Any:
        """Where it stands; ranks compare like numbers."""

    def at_least(self, other: Any, /) -> bool:
        """Whether it takes the place of another's."""


def assert_total_preorder(one: Strength, two: Strength, three: Strength) -> None:
    """Any two ranks compare, in no circle; and what takes a place has no lower rank."""
    ranks = [one.rank, two.rank, three.rank]
    for a, b in itertools.product(ranks, repeat=2):
        assert a <= b or b <= a
    for a, b, c in itertools.permutations(ranks):
        assert not (a <= b <= c) or a <= c
    assert one.at_least(one)
    if one.at_least(two):
        assert ranks[0] >= ranks[1]
        if two.at_least(three):
            assert one.at_least(three)
