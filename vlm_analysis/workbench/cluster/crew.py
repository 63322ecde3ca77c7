"""The workers of a cluster on Ray, and the parts of the work that are handed out to them. The only file that imports Ray.

A worker that dies loses nothing: its part runs again on another. Ray's own repetition of tasks is not used.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import ClusterError, ModelError, short
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.words import counted
from vlm_analysis.workbench.cluster.messages import packed, unpacked
from vlm_analysis.workbench.cluster.worker import ANSWER, Worker, versions

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

AUTO, LOOPBACK = "auto", "127.0.0.1"
TICK_S = 0.25  # between two looks for a request to stop
START_S = 900.0  # how long no worker at all may be there
MOST_LOST = 3  # workers that one part may end
QUIET = {  # before Ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else 127.0.0.1 is rewritten to an address that others reach
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a GPU keeps the environment of its machine
}
_ADDRESS = re.compile(r"[\w.\-]{1,253}:\d{1,5}|\[[0-9a-fA-F:]{2,45}\]:\d{1,5}")
LOST = ("RayActorError", "NodeDiedError", "WorkerCrashedError", "ObjectLostError", "OwnerDiedError", "OutOfMemoryError")

Message = tuple[str, Sequence[Any]]
"""The name of a worker's method and its arguments."""


@dataclass(eq=False)
class Part:
    """A part of the work.

    Attributes:
        message: returns what to ask a worker for, from what is still missing; None where nothing is.
        take: takes one answer of a worker: its values, and the message with its files.
    """

    message: Callable[[], Message | None]
    take: Callable[[Mapping[str, Any], bytes], object]
    n_lost: int = 0


@dataclass(eq=False)
class _Hand:
    """A worker: its actor, the answers that are awaited, and the part that it works on; before that it loads the model."""

    actor: Any
    answers: Any
    part: Part | None = None
    is_ready: bool = False


def check_address(address: str) -> str:
    """Return an address of a cluster: "auto", or a host and a port.

    Raises:
        ClusterError: it is neither.
    """
    found = address.strip()
    if found != AUTO and not _ADDRESS.fullmatch(found):
        raise ClusterError(
            f"{short(repr(address), 80)} is no cluster: expected auto, or host:port as `ray start --head` prints it. Write it so."
        )
    return found


def places(nodes: Sequence[Mapping[str, Any]], threads: int, *, gpu: bool) -> int:
    """Return how many workers there is room for: one for each GPU, or for each so many CPUs of a node.

    `nodes` are Ray's: whether each is "Alive", and its "Resources".
    """
    resources = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    if gpu:
        return sum(int(one.get("GPU", 0)) for one in resources)
    return sum(int(one.get("CPU", 0)) // threads for one in resources)


@contextmanager
def connected(address: str) -> Iterator[Crew]:
    """Connect to a cluster for the length of the block; yields the Crew of it, whose workers end with the block.

    Args:
        address: host:port, or "auto": the cluster that runs on this machine; where none does, one is started on this machine, which listens
            on 127.0.0.1 alone, and ended after.

    Raises:
        ClusterError: Ray is not installed, or there is no such cluster.
    """
    address = check_address(address)
    ray = _ray()
    folder = None
    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            folder = _join(ray, address)
        crew = Crew(ray)
        try:
            yield crew
        finally:
            crew.dismiss()
    finally:
        if is_ours:
            ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _ray() -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "There is no Ray: expected the package ray for a cluster, got none. Run pip install '.[cluster]', on all machines."
        ) from error
    return ray


def _join(ray: Any, address: str) -> str | None:
    """Join a cluster, or start one; returns the folder of one that was started."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    here = {"_node_ip_address": LOOPBACK} if address.startswith(f"{LOOPBACK}:") else {}
    try:
        ray.init(address=address, **here, **quiet)
    except ConnectionError as error:
        if address != AUTO or os.environ.get("RAY_ADDRESS"):
            raise ClusterError(
                f"There is no cluster at {address}: expected one to join, got {short(error)}. Start it by `ray start --head`, or "
                "name another."
            ) from error
    except (RuntimeError, ValueError) as error:  # other versions of Ray or Python there
        raise ClusterError(
            f"The cluster at {address} cannot be joined: {short(error, 500)}. Use the same Ray there."
        ) from error
    else:
        return None
    folder = tempfile.mkdtemp(prefix="strata-ray-")
    ray.init(_node_ip_address=LOOPBACK, include_dashboard=False, _temp_dir=folder, **quiet)
    return folder


class Crew:
    """The workers of a cluster, started when there is work, each with the model. One process at a time hands out work through it."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._hands: list[_Hand] = []
        self._model = b""
        self._loaded: LoadedModel | None = None
        self._n_failed = 0
        self._gone = tuple(getattr(ray.exceptions, name) for name in LOST if hasattr(ray.exceptions, name))

    @property
    def n_ready(self) -> int:
        """Return how many workers have the model."""
        return sum(hand.is_ready for hand in self._hands)

    def shared(self, data: bytes) -> Any:
        """Return what stands for bytes that many messages bring: they go to each machine once."""
        return self._ray.put(data)

    def hand_out(
        self,
        loaded: LoadedModel,
        model: tuple[str, Mapping[str, Any]],
        parts: Sequence[Part],
        waiting: Callable[[], object],
    ) -> None:
        """Have all parts done by workers with this model.

        Args:
            model: the source that every machine loads it from, and the options.
            waiting: called several times a second; raising `Cancelled` in it stops the work, and what was taken stays.

        Raises:
            ClusterError: no worker can be had, or one part ends every worker that tries it.
            ModelError: a machine cannot load the model, or has another.
        """
        if not parts:
            return
        left = deque(parts)
        self._engage(loaded, model, len(left))
        seen = time.monotonic()
        while left or any(hand.part for hand in self._hands):
            for hand in self._hands:
                if hand.is_ready and hand.part is None:
                    self._give(hand, left)
            waiting()
            stop_if_asked()
            asked = {hand.answers: hand for hand in self._hands if hand.answers is not None}
            ready = self._ray.wait(list(asked), num_returns=1, timeout=TICK_S)[0] if asked else []
            for answers in ready:
                self._hear(asked[answers], left)
            if self.n_ready or ready:
                seen = time.monotonic()
            elif time.monotonic() - seen > START_S:
                raise ClusterError(
                    f"No worker of the cluster is left: expected one within {START_S:.0f} s, got none. Look at `ray status`; run it "
                    "again to go on."
                )

    def dismiss(self) -> None:
        """End all workers."""
        for hand in self._hands:
            with suppress(Exception):  # one that is dead, or a cluster that is gone
                self._ray.kill(hand.actor)
        self._hands = []

    def _engage(self, loaded: LoadedModel, model: tuple[str, Mapping[str, Any]], n_parts: int) -> None:
        """Start as many workers with this model as there is room for, and work."""
        import torch

        threads, gpu = torch.get_num_threads(), loaded.device.type == "cuda"
        message = packed({"source": model[0], "options": dict(model[1]), "threads": threads})
        if message != self._model:
            self.dismiss()
        self._model, self._loaded = message, loaded
        room = places(self._ray.nodes(), threads, gpu=gpu)
        if not room:
            what = (
                "a GPU, as the model is on one here" if gpu else f"{counted(threads, 'CPU')}, as many threads run here"
            )
            raise ClusterError(
                f"The cluster has no room for a worker: expected a machine with {what}, got none. Set OMP_NUM_THREADS to fewer, load the "
                "model on the kind of device that the cluster has, or add machines."
            )
        for _ in range(min(room, n_parts) - len(self._hands)):
            self._start(threads, gpu)

    def _start(self, threads: int, gpu: bool) -> None:
        needs: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1} if gpu else {"num_cpus": threads}
        actor = self._ray.remote(Worker).options(max_restarts=0, max_task_retries=0, **needs).remote()
        self._hands.append(_Hand(actor, self._ask(actor, ("load", (self._model,)))))

    def _ask(self, actor: Any, message: Message) -> Any:
        name, arguments = message
        return getattr(actor, name).options(num_returns="streaming").remote(*arguments)

    def _give(self, hand: _Hand, left: deque[Part]) -> None:
        while left and hand.part is None:
            part = left.popleft()
            message = part.message()
            if message is not None:
                hand.part, hand.answers = part, self._ask(hand.actor, message)

    def _hear(self, hand: _Hand, left: deque[Part]) -> None:
        """Take the next answer of a worker, or its end; a part of a dead one goes to another."""
        try:
            data: bytes = self._ray.get(next(hand.answers))
        except StopIteration:
            hand.part, hand.answers = None, None
            return
        except self._gone as error:
            self._replace(hand, left, error)
            return
        answer = unpacked(data, ANSWER)
        if answer.get("bug"):
            raise RuntimeError(f"A worker of the cluster failed:\n{answer['bug']}")
        if hand.part is None:
            self._check_model(answer)
            hand.is_ready = True
        elif answer.get("error"):
            raise ClusterError(f"A worker of the cluster stopped. {answer['error']}")
        else:
            hand.part.take(answer, data)

    def _replace(self, hand: _Hand, left: deque[Part], error: Exception) -> None:
        """Put the part of a dead worker back, and start another worker, which waits until there is room."""
        import torch

        self._hands.remove(hand)
        self._n_failed += not hand.is_ready
        if self._n_failed > MOST_LOST * (1 + len(self._hands)):
            raise ClusterError(
                f"The workers of the cluster end before they have the model: {short(error, 500)}. Install this version of Strata on all "
                "machines, and see that the model fits there."
            )
        if hand.part is not None:
            hand.part.n_lost += 1
            if hand.part.n_lost >= MOST_LOST:
                raise ClusterError(
                    f"One part of the work ended {counted(MOST_LOST, 'worker')}: expected an answer, got none. There may be too little "
                    "memory: look at `ray status` and the logs of Ray; run it again to go on."
                )
            left.appendleft(hand.part)
        assert self._loaded is not None
        self._start(torch.get_num_threads(), self._loaded.device.type == "cuda")

    def _check_model(self, answer: Mapping[str, Any]) -> None:
        assert self._loaded is not None
        if answer.get("error"):
            raise ModelError(f"A machine of the cluster cannot load the model. {answer['error']}")
        if answer.get("versions") != versions():
            raise ClusterError(
                f"The machines of the cluster differ: expected {versions()}, got {answer.get('versions')} on one. Install the same "
                "versions."
            )
        if answer.get("fingerprint") != self._loaded.fingerprint:
            raise ModelError(
                f"A machine of the cluster has another model at the same place: expected {self._loaded.fingerprint[:8]}, got "
                f"{str(answer.get('fingerprint'))[:8]}. Copy the model there, or load it here with the same precision and bound."
            )


def words(crew: Crew) -> str:
    """Return how many workers there are, for messages of progress."""
    return counted(crew.n_ready, "worker") if crew.n_ready else "waiting for workers"
