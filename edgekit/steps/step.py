"""A step of a build as an object, and the walk over a list of them.

The run and its plan take the same walk. A step is done where its result is not there, where the
user forces it, and where it follows from a step that is done: so a look at each in turn, without
doing any, says what a run would do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Literal, TypeVar

from edgekit.steps.context import Context, StepName

T = TypeVar("T")
State = Literal["to do", "cached", "up to date", "given", "not measured here"]


class Step(ABC, Generic[T]):
    """One step: what it follows from, whether its result is there, and how that is made."""

    name: StepName | None = None  # None: it ends a target's bundle, and users do not name it
    there: State = "cached"  # its state where its result is there
    given = False  # the user's own file: nothing to make, whatever is forced

    def __init__(
        self, context: Context, *after: Step[Any], target: str = "", writes: object = ""
    ) -> None:
        self.context, self.after = context, after
        self.target, self.writes = target, str(writes)
        self.needed_for: Sequence[Step[Any]] = ()  # the last ones that need its result
        self.state: State = "to do"
        self.anew = False  # it is done in this run, or follows from one that is
        self.why = ""  # it cannot be done here
        self._result: T | None = None

    @abstractmethod
    def _stored(self) -> T | None:
        """The result of an earlier run, if it is there, whole, and of these very inputs."""

    @abstractmethod
    def _make(self) -> T:
        """The result, made whatever is there."""

    def _describe(self, result: T) -> str:
        """A line about a result that was there."""
        return ""

    def _left_by_another(self) -> bool:
        """Whether a step before this one, which is to be done, leaves this one's result as well."""
        return False

    @property
    def result(self) -> T:
        """What the step gave; only steps that are looked at later may ask."""
        assert self._result is not None, f"{self.name} has no result yet"
        return self._result

    @property
    def settled(self) -> bool:
        """Whether an earlier run has left all that there is to do here."""
        return bool(self.why) or self._stored() is not None

    def look(self) -> None:
        """Decide what is to be done. A result that is yet to be made is not asked for."""
        self.state, self.anew = self._decide()

    def _decide(self) -> tuple[State, bool]:
        forced, ends = self.context.forced, self.needed_for
        follows = self.name in forced or any(step.anew for step in self.after)
        if self.why:
            return "not measured here", False
        if ends and not forced and all(end.settled for end in ends):
            return "up to date", False  # nobody asks for its result
        if self.given or not follows:
            self._result = self._stored()
        if self.given:
            return "given", follows
        if self._result is not None:
            return self.there, False
        return "cached" if self._left_by_another() else "to do", True

    def do(self) -> None:
        """Do what the look decided, and say so."""
        say = self.context.console.info
        if self.state == "not measured here":
            if self.after[0].anew or self.name in self.context.forced:
                say(f"{self.name} ({self.target}): {self.state}: {self.why}")
        elif self.state == "cached":
            if self._result is None:  # left by another since
                self._result = self._stored()
            say(f"{self.name}: cached")
            if line := self._describe(self.result):
                say(line)
        elif self.state in ("to do", "given") and self._result is None:
            self._result = self._make()


def look_at(steps: Iterable[Step[Any]]) -> None:
    """Find out what a run would do, without doing it."""
    for step in steps:
        step.look()


def walk(steps: Iterable[Step[Any]]) -> None:
    """Do what is to be done."""
    for step in steps:
        step.look()
        step.do()
