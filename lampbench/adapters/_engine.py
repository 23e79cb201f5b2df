"""The stacked engine: many users trained in one pass, each as if alone.

Every step takes the next batch of each user who has a slot, runs all their rows through the frozen
backbone together, and moves each user by that user's own gradient. The loss is a sum over users of their
own token means, and users share no parameter, so a slice's gradient is the gradient that user would have
alone. A user who is done leaves the slot to the next in the queue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from lampbench.adapters._dropout import row_key
from lampbench.adapters._memory import ConstantStore, EngineOptions, capacity, free_memory
from lampbench.adapters._optimizer import Snapshots, StackedAdamW
from lampbench.adapters._passes import Passes, TrainingRow
from lampbench.adapters._spec import AdapterSpec, Bank, PerUser, State
from lampbench.adapters._training import Recipe, TrainingJob, side_by_side
from lampbench.backbone import Adapter, TransformersBackbone
from lampbench.core import LampBenchError, is_out_of_memory

# Seconds after which a step shows how far it is.
_SLOW_STEP = 2.0

Trained = tuple[TrainingJob, list[State]]


def train_together(
    backbone: TransformersBackbone,
    jobs: Sequence[TrainingJob],
    specs: Sequence[AdapterSpec],
    recipe: Recipe,
    *,
    beneath: Sequence[Adapter | PerUser] = (),
    options: EngineOptions | None = None,
    snapshots: Snapshots | None = None,
    progress: Callable[[float, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Trained]:
    """Train the adapters of many users; each user comes out as soon as that user is done.

    Args:
        backbone: Frozen; no gradient is kept for it.
        jobs: The users.
        specs: Of the adapters of each user, which train together and act in this order.
        recipe: Optimizer settings, the same for all.
        beneath: Frozen adapters that act before all of them.
        options: Bounds; default: what fits.
        snapshots: Where the training of one single job is kept, and found again after an interruption.
        progress: Called as ``progress(steps done, steps in all)``, steps of all users counted.
        say: Told when memory did not suffice and less is done at a time.

    Raises:
        LampBenchError: Even one training example at a time does not fit into memory.
    """
    return _Engine(backbone, jobs, specs, recipe, beneath, options or EngineOptions(), snapshots, progress, say).run()


class _Seat:
    """One slot and the user who trains in it."""

    def __init__(self, slot: int, number: int, job: TrainingJob, engine: _Engine) -> None:
        self.slot = slot
        self.job = job
        self.step = 0
        self.steps = engine.recipe.steps(len(job.pairs))
        self.rate = engine.recipe.schedule(self.steps)
        self.encoded = [engine.backbone.encoder.pair(pair) for pair in job.pairs]
        # Names of all training examples; no two seats share one.
        self.examples = [(number, i) for i in range(len(self.encoded))]
        self.batches = engine.recipe.batches(len(self.encoded), job.seed)

    def next_rows(self) -> list[TrainingRow]:
        """The next batch."""
        chosen = next(self.batches)
        weight = 1 / sum(len(self.encoded[i][1]) for i in chosen)
        keys, tell = [row_key(self.job.seed, self.step, i) for i in chosen], self.job.given
        return [
            TrainingRow(
                self.slot,
                self.examples[i],
                *self.encoded[i],
                weight,
                key,
                self.job.name,
                None if tell is None else tell(i),
            )
            for i, key in zip(chosen, keys, strict=True)
        ]

    def skip_to(self, step: int) -> None:
        """Continue where an earlier session stopped."""
        for _ in range(step):
            next(self.batches)
        self.step = step


@dataclass
class _Engine:
    backbone: TransformersBackbone
    jobs: Sequence[TrainingJob]
    specs: Sequence[AdapterSpec]
    recipe: Recipe
    beneath: Sequence[Adapter | PerUser]
    options: EngineOptions
    snapshots: Snapshots | None
    progress: Callable[[float, int], None]
    say: Callable[[str], None]
    done: int = 0
    seated: int = 0

    def __post_init__(self) -> None:
        room = self.options.within(capacity(self.backbone, self.specs, free_memory(self.backbone.device)))
        self.users = max(1, min(room.users, len(self.jobs)))
        self.passes = Passes(
            self.backbone,
            self.specs,
            self.beneath,
            ConstantStore(room.constants if self.recipe.epochs > 1 else 0),
            room.columns,
            self.options.split_prompts,
            say=self.say,
        )
        self.total = sum(self._steps(job) for job in self.jobs)
        # Longest first: the user who takes longest must not begin last.
        self.queue = deque(sorted(self.jobs, key=self._steps, reverse=True))

    def _steps(self, job: TrainingJob) -> int:
        return self.recipe.steps(len(job.pairs))

    def run(self) -> Iterator[Trained]:
        if not self.queue:
            return
        banks, optimizer = self._make_room()
        seats: dict[int, _Seat] = {}
        while self.queue or seats:
            while self.queue and len(seats) < self.users:
                slot = next(slot for slot in range(self.users) if slot not in seats)
                seats[slot] = self._seat(slot, banks, optimizer)
            for seat in [seat for seat in seats.values() if seat.step == seat.steps]:
                del seats[seat.slot]
                for example in seat.examples:
                    self.passes.store.drop(example)
                yield seat.job, [bank.take(seat.slot) for bank in banks]
            if seats:
                self._step([seats[slot] for slot in sorted(seats)], banks, optimizer)

    def _make_room(self) -> tuple[list[Bank], StackedAdamW]:
        while True:
            try:
                banks = [spec.bank(self.backbone, self.users) for spec in self.specs]
                parameters = [parameter for bank in banks for parameter in bank.parameters.values()]
                recipe = self.recipe
                return banks, StackedAdamW(parameters, self.users, weight_decay=recipe.weight_decay, clip=recipe.clip)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.users == 1:
                    raise LampBenchError(
                        "out of memory for the parameters of a single user; use a smaller rank"
                    ) from error
                self.users //= 2
                self.say(f"not enough memory: {self.users} users at a time")

    def _seat(self, slot: int, banks: Sequence[Bank], optimizer: StackedAdamW) -> _Seat:
        usage = self.backbone.usage
        cut = usage.cut_contexts, usage.cut_sources
        self.seated += 1
        seat = _Seat(slot, self.seated, self.queue.popleft(), self)
        for bank, start in zip(banks, seat.job.starts, strict=True):
            bank.put(slot, start)
        optimizer.restart(slot)
        if self.snapshots is not None:
            step = self.snapshots.restore(banks, optimizer, self.say)
            seat.skip_to(step)
            self.done += step
            if step:
                # The session that began this counted them.
                usage.cut_contexts, usage.cut_sources = cut
        return seat

    def _step(self, seats: Sequence[_Seat], banks: Sequence[Bank], optimizer: StackedAdamW) -> None:
        rates = [seat.rate(seat.step) for seat in seats]
        rows = [row for seat in seats for row in seat.next_rows()]
        while not self._gradients(rows, banks, optimizer, len(seats)):
            pass
        self.recipe.penalize([parameter for bank in banks for parameter in bank.parameters.values()])
        optimizer.step([seat.slot for seat in seats], rates)
        self.backbone.usage.train_tokens += sum(len(row.prompt) + len(row.target) for row in rows)
        for seat in seats:
            seat.step += 1
        self.done += len(seats)
        self.progress(self.done, self.total)
        if self.snapshots is not None:
            self.snapshots.offer(banks, optimizer)

    def _gradients(
        self, rows: Sequence[TrainingRow], banks: Sequence[Bank], optimizer: StackedAdamW, steps: int
    ) -> bool:
        """Every user's gradient of this step; False, and nothing changed, if memory did not suffice.

        Of a slow one, which is ``steps`` of all users' steps, progress is told after each pass.
        """
        begun, passed = time.monotonic(), 0
        optimizer.zero_grad(set_to_none=True)
        batches = self.passes.batches(rows)
        try:
            evaluated = [bank.evaluated() for bank in banks]
            for batch in batches:
                device = self.backbone.model.device
                slots = torch.tensor([row.slot for row in batch], device=device)
                keys = torch.tensor([row.dropout_key for row in batch], device=device)
                given = [row.given for row in batch if row.given is not None]
                told = side_by_side(given, self.backbone.device) if given else None
                self.passes.backward(batch, [own.of_rows(slots, keys, told) for own in evaluated])
                passed += 1
                if time.monotonic() - begun > _SLOW_STEP:
                    self.progress(self.done + steps * passed / len(batches), self.total)
            for own in evaluated:
                own.backward()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return True
        # Out of the handler: the error's traceback holds the failed pass's tensors.
        self._do_less(max(batches, key=self.passes.room))
        return False

    def _do_less(self, largest: Sequence[TrainingRow]) -> None:
        """Halve the passes below the ``largest`` that was tried; when that is one row, keep nothing besides."""
        if self.backbone.device.startswith("cuda"):
            torch.cuda.empty_cache()
        if len(largest) > 1:
            self.passes.columns = self.passes.room(largest) // 2
            self.say(f"not enough memory: from now on half as much in one pass ({self.passes.columns} columns)")
        elif self.passes.store.close():
            self.say("not enough memory: from now on nothing is kept from one epoch to the next")
        else:
            raise LampBenchError(
                "out of memory with one training example at a time; "
                "use a smaller model, --dtype bfloat16, or a device with more memory"
            )
