"""A step of a build as an object, and the walk over a list of them.

A run and its plan take the same walk. A step runs if its result is missing, if the user forces it,
or if a step before it runs: so looking at each in turn, without running any, shows what a run
would do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Literal, TypeVar

from edgekit.steps.context import Context
from edgekit.steps.step_names import StepName

T = TypeVar("T")
State = Literal["to do", "cached", "up to date", "given", "not measured here"]


class Step(ABC, Generic[T]):
    """One step: what it depends on, whether its result exists, and how to make it."""

    name: StepName | None = None  # None: it finishes a target's bundle, and users cannot name it
    state_if_stored: State = "cached"
    given = False  # the user's own file: nothing to make, even if forced

    def __init__(
        self, context: Context, *after: Step[Any], target: str = "", writes: object = ""
    ) -> None:
        self.context, self.after = context, after
        self.target, self.writes = target, str(writes)
        self.needed_for: Sequence[Step[Any]] = ()  # the final steps that need its result
        self.state: State = "to do"
        self.reruns = False  # it runs this time, or depends on a step that does
        self.why = ""  # why it cannot run here
        self._result: T | None = None

    @abstractmethod
    def _stored(self) -> T | None:
        """The result of an earlier run, if it is intact and from exactly these inputs."""

    @abstractmethod
    def _make(self) -> T:
        """Make the result, whatever is stored."""

    def _describe(self, result: T) -> str:
        """A line about a stored result."""
        return ""

    def _left_by_another(self) -> bool:
        """Whether an earlier step that will run produces this one's result as well."""
        return False

    @property
    def result(self) -> T:
        """The step's result; only later steps may ask for it."""
        assert self._result is not None, f"{self.name} has no result yet"
        return self._result

    @property
    def settled(self) -> bool:
        """Whether an earlier run left nothing to do here."""
        return bool(self.why) or self._stored() is not None

    def look(self) -> None:
        """Decide whether to run, without asking for results that do not exist yet."""
        self.state, self.reruns = self._decide()

    def _decide(self) -> tuple[State, bool]:
        forced, ends = self.context.forced, self.needed_for
        follows = self.name in forced or any(step.reruns for step in self.after)
        if self.why:
            return "not measured here", False
        if ends and not forced and all(end.settled for end in ends):
            return "up to date", False  # nobody needs its result
        if self.given or not follows:
            self._result = self._stored()
        if self.given:
            return "given", follows
        if self._result is not None:
            return self.state_if_stored, False
        return "cached" if self._left_by_another() else "to do", True

    def do(self) -> None:
        """Do what `look` decided, and report it."""
        report = self.context.console.info
        if self.state == "not measured here":
            if self.after[0].reruns or self.name in self.context.forced:
                report(f"{self.name} ({self.target}): {self.state}: {self.why}")
        elif self.state == "cached":
            if self._result is None:  # produced by another step since
                self._result = self._stored()
            report(f"{self.name}: cached")
            if line := self._describe(self.result):
                report(line)
        elif self.state in ("to do", "given") and self._result is None:
            self._result = self._make()


def look_at(steps: Iterable[Step[Any]]) -> None:
    """Decide what a run would do, without doing it."""
    for step in steps:
        step.look()


def walk(steps: Iterable[Step[Any]]) -> None:
    """Run the steps that need to run."""
    for step in steps:
        step.look()
        step.do()
