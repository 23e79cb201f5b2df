"""Ray: started or joined, its workers started and compared with this process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lampbench
from lampbench.core import InputError, first_line
from lampbench.runner._environment import environment
from lampbench.runner.scale._actor import WorkerActor

# Seconds that workers have to clean up; and after which a wait for them is told.
_PATIENCE, _TOLD_EVERY = 3.0, 15.0
# What must be the same on all machines of a run.
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True)
class ClusterSettings:
    """Which workers.

    Attributes:
        address: Of a Ray cluster, or ``auto`` for the one that this machine belongs to; None starts one here.
        workers: How many; None for as many as there are GPUs (or CPUs) for.
        gpus_per_worker: 0 for workers on the CPU. A fraction lets workers share a GPU.
        threads: Threads, and CPUs, of each worker.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 0.0
    threads: int = 1


@dataclass(frozen=True)
class Cluster:
    """Workers that are ready.

    Attributes:
        actors: The workers.
        where: The environment that rows name.
        start: Starts a worker.
    """

    actors: list[Any]
    where: Mapping[str, Any]
    start: Callable[[], Any]

    def replace(self, worker: int) -> None:
        """End a worker, whatever it is doing, and start another in its place."""
        import ray

        ray.kill(self.actors[worker])
        self.actors[worker] = self.start()


@contextmanager
def cluster(settings: ClusterSettings, device: str | None, say: Callable[[str], None]) -> Iterator[Cluster]:
    """Workers, until the block ends.

    Args:
        settings: Which.
        device: The device of the backbone, such as ``cpu`` or ``cuda``; None if no run has one.
        say: Gets a line if the wait is long.

    Raises:
        InputError: There is no Ray, no such cluster, too little of it; or its machines have other versions.
    """
    with _ray(settings) as ray:
        count, cpus = _count(ray, settings), settings.threads
        # One thread does a unit, another receives the request to stop.
        kind = ray.remote(WorkerActor).options(
            num_cpus=cpus, num_gpus=settings.gpus_per_worker, max_restarts=0, max_concurrency=2
        )

        def start() -> Any:
            return kind.remote(settings.threads)

        actors = [start() for _ in range(count)]
        try:
            found = _ready(ray, [actor.about.remote(device, cpus) for actor in actors], say)
            _compare([about["lampbench"] for about in found], [about["environment"] for about in found])
            yield Cluster(actors, _where([about["environment"] for about in found]), start)
        finally:
            # One that hangs is not waited for.
            ray.wait([actor.close.remote() for actor in actors], num_returns=len(actors), timeout=_PATIENCE)
            for actor in actors:
                ray.kill(actor)


@contextmanager
def _ray(settings: ClusterSettings) -> Iterator[Any]:
    # Without this, Ray sends usage statistics.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Workers get less of a busy processor than others by default, and their time is measured.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray: Ray is not installed here; pip install 'lampbench[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    cpus = settings.workers * settings.threads if settings.workers else os.cpu_count()
    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(
            address=settings.address or "local",
            configure_logging=False,
            log_to_driver=False,
            **({} if settings.address else own),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = first_line(error) or type(error).__name__
        at = f"--address {settings.address}" if settings.address else "--executor ray"
        raise InputError(f"{at}: no Ray cluster there: {reason}; `ray start` makes one") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _ready(ray: Any, answers: Sequence[Any], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """What all workers say of themselves, once there was room for each; raises InputError where one cannot start."""
    waiting = list(answers)
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_TOLD_EVERY)
        if waiting:
            ready = len(answers) - len(waiting)
            say(f"{ready} of {len(answers)} workers are ready; waiting for Ray to find room for the others")
    try:
        return list(ray.get(list(answers)))
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"--executor ray: a worker cannot start: {reason}; every machine needs the same environment"
        ) from None


def room_for(nodes: Sequence[Mapping[str, Any]], gpus: float, cpus: int = 1) -> int:
    """How many workers fit, node by node: none has CPUs or GPUs of two."""
    places = 0
    for node in nodes:
        if not node["Alive"]:
            continue
        has = node["Resources"]
        fit = int(has.get("CPU", 0)) // cpus
        if gpus:
            own = int(has.get("GPU", 0))
            fit = min(fit, own * int(1 / gpus + 1e-9) if gpus < 1 else own // int(gpus))
        places += fit
    return places


def _count(ray: Any, settings: ClusterSettings) -> int:
    """How many workers; raises InputError where the cluster has no place for them."""
    has, room = ray.cluster_resources(), room_for(ray.nodes(), settings.gpus_per_worker, settings.threads)
    count = settings.workers or room
    if not 1 <= count <= room:
        wanted = f"{settings.threads} CPU" + ("s" if settings.threads > 1 else "")
        wanted = f"{settings.gpus_per_worker:g} GPUs and {wanted}" if settings.gpus_per_worker else wanted
        raise InputError(
            f"--workers {count}: Ray has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs, and a worker takes "
            f"{wanted}: there is room for {room}"
        )
    return count


def _compare(versions: Sequence[str], found: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError where a worker has other versions than this process."""
    own = _versions(lampbench.__version__, environment("cpu"))
    for version, other in zip(versions, found, strict=True):
        for name, expected in own.items():
            there = _versions(version, other).get(name)
            if there != expected:
                raise InputError(
                    f"--executor ray: a worker has {name} {there}, here it is {expected}; every machine needs the same "
                    "environment"
                )


def _versions(version: str, where: Mapping[str, Any]) -> dict[str, Any]:
    packages = {name: where["packages"].get(name) for name in _PACKAGES}
    return {"lampbench": version, "python": where["python"], **packages}


def _where(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The workers' environment; the hardware class is that of all of them."""
    classes = Counter(environment["hardware_class"] for environment in found)
    parts = [f"{count} of {name}" for name, count in sorted(classes.items())]
    hardware = f"{len(found)} workers, each {next(iter(classes))}" if len(classes) == 1 else ", ".join(parts)
    return {**found[0], "hardware_class": hardware, "workers": len(found)}
