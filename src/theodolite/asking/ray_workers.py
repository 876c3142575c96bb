"""Parts of a survey's questions answered by several workers through Ray; each holds the model, on a GPU of its own where there are any."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import theodolite
from theodolite.asking.answer import Answer, Asker
from theodolite.asking.parts import QuestionPart
from theodolite.asking.pictures import PicturePool
from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress

# Parts that a worker holds at once: the one that it answers and the next, so that it never waits for pictures.
AHEAD = 2
# How many times Ray starts a lost worker again, and gives it the part once more that it was at.
RESTARTS = 3


def connect_ray(**options: Any) -> Any:
    """The `ray` module, connected to the cluster that RAY_ADDRESS names, else to a local one with these options of `ray.init`.

    This package is sent to the machines; they need its dependencies. Raises `BadInput` if Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise BadInput("work on several devices or machines needs Ray; install it with: pip install 'theodolite[ray]'") from error
    if not ray.is_initialized():
        # Without an address Ray would join whatever cluster happens to run on this machine.
        address = os.environ.get("RAY_ADDRESS") or "local"
        # Ray sends modules only with a connection, not with a task.
        environment = {"py_modules": [theodolite]}
        own = options if address == "local" else {}
        if address == "local":
            # Ray gives workers a low priority, at which other work on the machine would stop them; here they do what the user waits for.
            os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(address=address, runtime_env=environment, include_dashboard=False, log_to_driver=False, **own)
    return ray


@contextmanager
def _as_bad_input(ray: Any) -> Iterator[None]:
    """Raises a worker's own error as it was raised there, and the loss of a worker as `BadInput`."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, BadInput) else error from None
    except ray.exceptions.RayActorError as error:
        raise BadInput(
            f"a worker died {RESTARTS + 1} times at the same questions ({str(error).splitlines()[0]}); if memory ran out, give fewer "
            "devices, or --batch"
        ) from error


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, load: Callable[[], tuple[Asker, Any]]) -> None:
        self.asker, self.facts = load()

    def answer(self, part: QuestionPart) -> tuple[list[Answer], list[dict[str, Any] | None]]:
        """The answers of a part, and what became of its pictures where they are a pool's."""
        answers = self.asker.ask(part.pictures, part.questions, _silent)
        return answers, part.pictures.facts() if isinstance(part.pictures, PicturePool) else []

    def of_model(self) -> Any:
        return self.facts

    def call(self, function: Callable[[Asker], Any]) -> Any:
        return function(self.asker)


def _silent(done: int, total: int, note: str = "") -> None:
    """Progress within a part is not sent."""


@dataclass(eq=False)
class RayWorkers:
    """A `PartAsker` of `num` workers. Each has an asker of its own, which `load` makes in its process, with what is to be known of it.

    A worker whose process dies is started again, and its part is asked again, up to `RESTARTS` times. `resources` are the options of a Ray
    actor, such as `num_gpus`.
    """

    ray: Any
    actors: list[Any]

    @classmethod
    def start(cls, ray: Any, load: Callable[[], tuple[Asker, Any]], num: int, resources: dict[str, Any]) -> RayWorkers:
        """Starts the workers; they load at once, beside each other."""
        remote = ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS, **resources)(_Worker)
        return cls(ray, [remote.remote(load) for _ in range(num)])

    def facts(self) -> Any:
        """What the first worker's `load` gave beside the asker. Raises what it raised, and `BadInput` if the worker does not start."""
        with _as_bad_input(self.ray):
            return self.ray.get(self.actors[0].of_model.remote())

    def call(self, function: Callable[[Asker], Any]) -> Any:
        """What a function gives for the asker of the first worker. Raises what it raises there, and `BadInput` if no worker starts."""
        with _as_bad_input(self.ray):
            return self.ray.get(self.actors[0].call.remote(function))

    def answers(self, parts: Iterable[tuple[int, QuestionPart]], progress: Progress) -> Iterator[tuple[QuestionPart, int, list[Answer]]]:
        """As `PartAsker` says. Raises `BadInput` if a worker cannot answer a part, or dies of it again and again."""
        supply = iter(parts)
        idle = deque(actor for _ in range(AHEAD) for actor in self.actors)
        working: dict[Any, tuple[Any, int, QuestionPart]] = {}
        while True:
            while idle and (following := next(supply, None)) is not None:
                actor, (number, part) = idle.popleft(), following
                working[actor.answer.remote(part.detached())] = (actor, number, part)
            if not working:
                return
            (reference,), _ = self.ray.wait(list(working), num_returns=1)
            actor, number, part = working.pop(reference)
            with _as_bad_input(self.ray):
                answers, facts = self.ray.get(reference)
            if isinstance(part.pictures, PicturePool):
                part.pictures.restore(facts)
            idle.append(actor)
            yield part, number, answers

    def stop(self) -> None:
        """Ends the workers, so that their memory is free."""
        for actor in self.actors:
            self.ray.kill(actor)
        self.actors.clear()
