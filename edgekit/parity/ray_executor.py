"""Answers a sweep's shards with the workers of a Ray cluster.

Each worker is an actor of one core. The driver, which is this process, keeps the order: it hands
shards out in the sweep's order, takes answers as they come, and yields them in the sweep's order.
It never hands out a shard that is more than a few per worker beyond the oldest one that it has not
yielded, so neither its memory nor a worker's depends on the number of images.

A worker that is gone, killed or with its node, is replaced, and what it had is handed out again.
"""

from __future__ import annotations

import pickle
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError, one_line
from edgekit.core.host import cpu_flags
from edgekit.core.threads import WAIT_SECONDS
from edgekit.parity.engines import CheckedPredictor
from edgekit.parity.executors import Arrived, Job, Shard, answer
from edgekit.parity.predictors import Opener, Predictor
from edgekit.parity.ray_worker import Answered, Failure, Ready, Worker, pack

ATTEMPTS: Final = 3
"""How often a shard is tried, and how many workers in a row may end before they are ready."""
_IN_FLIGHT = 2  # shards a worker has: the one it computes and the next
_AHEAD = 4  # shards per worker between the oldest not yielded and the newest handed out


@dataclass(eq=False)
class _Task:
    """A shard on its way."""

    shard: Shard
    turns: tuple[int, ...]  # of each model: the number of its call
    failed: int = 0


@dataclass(eq=False)
class _Hand:
    """A worker, seen from here."""

    actor: Any
    ready: bool = False
    tasks: deque[_Task] = field(default_factory=deque)  # in the order in which it computes them
    has: dict[str, Predictor] = field(default_factory=dict)  # models it can open, by key


_Done = Answered | Failure | EdgekitError | None
"""What became of a shard: its answers, why there are none, or nothing to do."""


class RayExecutor:
    """An `Executor` over all cores of a cluster, which it connects to when it is first needed."""

    def __init__(
        self, console: Console, connect: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.console, self._connect = console, connect
        self._connected = ExitStack()
        self.ray: Any = None
        self.most = 0  # workers
        self.hands: list[_Hand] = []
        self.failed_starts = 0
        self.told: set[str] = set()
        self.cpu_seconds = 0.0

    def close(self) -> None:
        """End the workers, whatever they are doing, and leave the cluster."""
        for hand in list(self.hands):
            self.gone(hand)
        self._connected.close()
        self.ray = None

    def _open(self) -> None:
        import ray

        self._connected.enter_context(self._connect())
        self.ray = ray
        self.most = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actor = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(Worker)
        self.console.info(f"Ray: {self.most} worker{'s' * (self.most > 1)}")

    def run(
        self, job: Job, shards: Iterator[Shard], arrived: Arrived
    ) -> Generator[Shard, None, None]:
        """As `edgekit.parity.executors.Executor.run`."""
        if self.ray is None:
            self._open()
        run = _Run(self, job, arrived)
        try:
            yield from run.run(shards)
        finally:
            run.stop()

    def prepare(self, calls: Sequence[Callable[[], None]]) -> None:
        """As `Executor.prepare`; with a single machine, it is left to this process."""
        if self.ray is None:
            self._open()
        ray = self.ray
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        usable = [count for count in cores if count]
        if len(usable) < 2:
            return
        # All of a machine's cores: a calibration uses them, as it would here.
        options = {"num_cpus": min(usable), "scheduling_strategy": "SPREAD", "max_retries": 0}
        task = ray.remote(**options)(_do)
        self.console.info(f"Ray: {len(calls)} calibrations on {len(usable)} machines")
        for reference in [task.remote(call) for call in calls]:
            try:
                failure = ray.get(reference)
            except ray.exceptions.RayError as error:
                failure = reason_of(error)
            if failure:
                self.console.warn(f"a calibration on Ray failed and is done here: {failure}")

    def start(self, run: _Run) -> None:
        """One more worker."""
        hand = _Hand(self._actor.remote())
        self.hands.append(hand)
        run.prepare(hand)

    def gone(self, hand: _Hand) -> None:
        """Forget a worker."""
        import ray

        self.hands.remove(hand)
        with suppress(ray.exceptions.RayError):
            ray.kill(hand.actor)


class _Run:
    """One call of `RayExecutor.run`."""

    def __init__(self, executor: RayExecutor, job: Job, arrived: Arrived) -> None:
        self._executor, self._job, self._arrived = executor, job, arrived
        self._data = self._executor.ray.put((job.dataset, job.make))
        self._fingerprint = job.make.fingerprint()
        self._keys = tuple(model.key for model in job.models)
        self._events: queue.SimpleQueue[tuple[_Hand, _Task | None, Future[Any]]]
        self._events = queue.SimpleQueue()
        self._waiting: deque[_Task] = deque()
        self._done: dict[int, tuple[Shard, _Done]] = {}  # by place, not yet yielded
        self._called = [0] * len(job.models)  # calls handed out that are not yielded
        for hand in executor.hands:
            hand.ready = False
            hand.tasks.clear()
            self.prepare(hand)

    def run(self, shards: Iterator[Shard]) -> Generator[Shard, None, None]:
        most_ahead = _AHEAD * self._executor.most
        taken = yielded = 0
        more = True
        while True:
            while more and taken - yielded < most_ahead:
                shard = next(shards, None)
                if shard is None:
                    more = False
                    break
                taken += 1
                self._take(shard)
                if yielded in self._done:  # before computing ahead here: it may be the last one
                    break
            self._hand_out()
            while yielded in self._done:
                yield self._finish(*self._done.pop(yielded))
                yielded += 1
            if taken == yielded and not more:
                return
            if not more or taken - yielded >= most_ahead:
                self._wait()

    def _take(self, shard: Shard) -> None:
        """Begin a shard: here, if that is what decides between two engines, or else there."""
        models = self._job.models
        asked = [model for model, rows in zip(models, shard.rows, strict=True) if rows]
        if not asked:
            self._done[shard.place] = shard, None
        elif any(isinstance(model, CheckedPredictor) and not model.decided for model in asked):
            self._done[shard.place] = shard, self._answer_here(shard)
        else:
            turns = []
            for place, (model, rows) in enumerate(zip(models, shard.rows, strict=True)):
                turn = model.turn if isinstance(model, CheckedPredictor) else 0
                turns.append(turn + self._called[place])
                self._called[place] += bool(rows)
            self._waiting.append(_Task(shard, tuple(turns)))

    def _answer_here(self, shard: Shard) -> EdgekitError | None:
        try:
            pixels = self._job.make(self._job.dataset, (shard.image, shard.numbers))
            outputs = answer(self._job.models, shard, pixels)
        except EdgekitError as error:
            return error
        self._arrived(shard, outputs)
        return None

    def _finish(self, shard: Shard, done: _Done) -> Shard:
        """It is the shard's turn."""
        if isinstance(done, EdgekitError):
            raise done
        if done is not None:
            for place, (model, rows) in enumerate(zip(self._job.models, shard.rows, strict=True)):
                self._called[place] -= bool(rows)
                if rows and isinstance(model, CheckedPredictor):
                    if isinstance(done, Failure):
                        model.refuse(done.message)
                    model.add(done.checks[place])
        return shard

    def _hand_out(self) -> None:
        """Give waiting shards to those who have the fewest, and start who is missing."""
        hands = self._executor.hands
        ready = [hand for hand in hands if hand.ready]
        while self._waiting and ready:
            hand = min(ready, key=lambda one: len(one.tasks))
            if len(hand.tasks) >= _IN_FLIGHT:
                break
            self._send(hand, self._waiting.popleft())
        starting = len(hands) - len(ready)
        for _ in range(min(self._executor.most - len(hands), len(self._waiting) - starting)):
            self._executor.start(self)

    def _send(self, hand: _Hand, task: _Task) -> None:
        openers: dict[str, Opener] = {}
        for model, rows in zip(self._job.models, task.shard.rows, strict=True):
            if rows and hand.has.get(model.key) is not model:
                openers[model.key] = opener_of(model)
                hand.has[model.key] = model
        hand.tasks.append(task)
        packed = pack(task.shard, task.turns)
        arguments = (packed, openers) if openers else (packed,)
        self._listen(hand, task, hand.actor.answer.remote(*arguments))

    def prepare(self, hand: _Hand) -> None:
        """Tell a worker what the sweep is about."""
        reference = hand.actor.prepare.remote(
            self._data, self._keys, self._fingerprint, str(Path.cwd())
        )
        self._listen(hand, None, reference)

    def _listen(self, hand: _Hand, task: _Task | None, reference: Any) -> None:
        events = self._events
        reference.future().add_done_callback(lambda future: events.put((hand, task, future)))

    def _wait(self) -> None:
        """Take in what has arrived; wait if nothing has."""
        try:
            event = self._events.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            ready = any(hand.ready for hand in self._executor.hands)
            raise EdgekitError(
                f"Ray's workers sent nothing for {WAIT_SECONDS:.0f} s: check that they respond"
                if ready
                else f"Ray started no worker in {WAIT_SECONDS:.0f} s: see 'ray status' for its "
                "free cores"
            ) from None
        self._take_in(*event)
        with suppress(queue.Empty):
            while True:
                self._take_in(*self._events.get_nowait())

    def _take_in(self, hand: _Hand, task: _Task | None, future: Future[Any]) -> None:
        if hand not in self._executor.hands:
            return  # its end was known already, and its shards are with others
        error = future.exception()
        if error is not None:
            self._failed(hand, task, error)
            return
        came = future.result()
        result: Ready | Answered | Failure = came if task is None else pickle.loads(came)
        if isinstance(result, Failure) and result.kind == "setup":
            raise EdgekitError(f"the worker on {result.host} {result.message}")
        if isinstance(result, Ready):
            self._ready(hand, result)
            return
        assert task is not None
        hand.tasks.remove(task)
        if isinstance(result, Answered):
            self._executor.cpu_seconds += result.cpu_seconds
            self._arrived(task.shard, result.outputs)
            self._done[task.shard.place] = task.shard, result
        elif result.kind == "engines":  # to be said when it is its turn
            self._done[task.shard.place] = task.shard, result
        else:
            self._again(task, f"on {result.host}: {result.message}")

    def _ready(self, hand: _Hand, ready: Ready) -> None:
        hand.ready = True
        self._executor.failed_starts = 0
        if ready.flags != cpu_flags() and ready.host not in self._executor.told:
            self._executor.told.add(ready.host)
            self._executor.console.warn(
                f"{ready.host} has another kind of CPU than this machine: it may round otherwise, "
                "and results may differ from those of one machine in their last digits"
            )

    def _failed(self, hand: _Hand, task: _Task | None, error: BaseException) -> None:
        """A call raised, or its worker is gone."""
        if not isinstance(error, self._executor.ray.exceptions.RayError):
            raise error
        reason = reason_of(error)
        if task is not None and not isinstance(error, self._executor.ray.exceptions.RayActorError):
            hand.tasks.remove(task)
            self._again(task, reason)
            return
        self._executor.gone(hand)
        # It was computing the first of its shards: the others have done nothing.
        for place, lost in reversed(list(enumerate(hand.tasks))):
            if place:
                self._waiting.appendleft(lost)
            else:
                self._again(lost, reason)
        if not hand.ready:
            self._executor.failed_starts += 1
            if self._executor.failed_starts >= ATTEMPTS:
                raise EdgekitError(f"Ray's workers end while they start: {reason}")

    def _again(self, task: _Task, reason: str) -> None:
        """Try a shard once more, first of all, or give it up."""
        task.failed += 1
        if task.failed < ATTEMPTS:
            self._waiting.appendleft(task)
            return
        image = self._job.dataset.key(task.shard.image)
        self._done[task.shard.place] = (
            task.shard,
            EdgekitError(f"image {image} failed {ATTEMPTS} times, the last {reason}"),
        )

    def stop(self) -> None:
        """Leave the workers as little to do as possible: what they have is not wanted any more."""
        for hand in self._executor.hands:
            hand.tasks.clear()


def _do(call: Callable[[], None]) -> str:
    """Runs in a task; why it failed, or nothing."""
    try:
        call()
    except EdgekitError as error:
        return str(error)
    return ""


def opener_of(model: Predictor) -> Opener:
    """How a worker opens a copy of ``model``."""
    opener: Opener | None = getattr(model, "opener", None)
    if opener is None:
        raise UsageError(f"{model.name} answers in one place only: leave out --on")
    return opener


def reason_of(error: BaseException) -> str:
    """What Ray says of a failure, without its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(ValueError(lines[-1] if lines else type(error).__name__))
