"""The stacked engine: many users trained in one pass, each as if alone.

Every step takes the next batch of each user who has a slot, runs all their rows through the frozen
backbone together, and moves each user by that user's own gradient. The loss is a sum over users of their
own token means, and users share no parameter, so a slice's gradient is the gradient that user would have
alone. A user who is done leaves the slot to the next in the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lampbench.adapters._capacity import Capacity, capacity
from lampbench.adapters._dropout import row_key
from lampbench.adapters._optimizer import StackedAdamW
from lampbench.adapters._passes import ConstantStore, Passes, Row
from lampbench.adapters._recipe import Job, Recipe
from lampbench.adapters._snapshot import Snapshots
from lampbench.adapters._spec import AdapterSpec, Bank, DropoutKeys, State
from lampbench.backbone import Adapter, TransformersBackbone
from lampbench.core import LampBenchError, is_out_of_memory

Trained = tuple[Job, list[State]]


@dataclass(frozen=True)
class EngineOptions:
    """Bounds that change how fast training is and nothing else; None: from free memory.

    Attributes:
        users: Users at a time.
        columns: Columns of a pass.
        constants: Bytes of what is kept because it never changes; 0 computes it again every epoch.
        split_prompts: Whether a prompt whose last tokens alone are edited is split before them.
    """

    users: int | None = None
    columns: int | None = None
    constants: int | None = None
    split_prompts: bool = True

    def within(self, found: Capacity) -> Capacity:
        """The capacity to use."""
        given = {"users": self.users, "columns": self.columns, "constants": self.constants}
        return replace(found, **{name: value for name, value in given.items() if value is not None})


def train_together(
    backbone: TransformersBackbone,
    jobs: Sequence[Job],
    specs: Sequence[AdapterSpec],
    recipe: Recipe,
    *,
    beneath: Sequence[Adapter] = (),
    options: EngineOptions | None = None,
    snapshots: Snapshots | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
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

    def __init__(self, slot: int, number: int, job: Job, backbone: TransformersBackbone, recipe: Recipe) -> None:
        self.slot = slot
        self.number = number
        self.job = job
        self.steps = recipe.steps(len(job.pairs))
        self.step = 0
        self._rate = recipe.schedule(self.steps)
        self._encoded = [backbone.encode_pair(pair) for pair in job.pairs]
        self._batches = recipe.batches(len(job.pairs), job.seed)

    @property
    def rate(self) -> float:
        """Learning rate of the coming step."""
        return self._rate(self.step)

    @property
    def examples(self) -> list[tuple[int, int]]:
        """Names of all training examples; no two seats share one."""
        return [(self.number, i) for i in range(len(self._encoded))]

    def next_rows(self) -> list[Row]:
        """The next batch."""
        chosen = next(self._batches)
        tokens = sum(len(self._encoded[i][1]) for i in chosen)
        return [
            Row(self.slot, (self.number, i), *self._encoded[i], 1 / tokens, row_key(self.job.seed, self.step, i))
            for i in chosen
        ]

    def skip_to(self, step: int) -> None:
        """Continue where an earlier session stopped."""
        for _ in range(step):
            next(self._batches)
        self.step = step


class _Engine:
    def __init__(
        self,
        backbone: TransformersBackbone,
        jobs: Sequence[Job],
        specs: Sequence[AdapterSpec],
        recipe: Recipe,
        beneath: Sequence[Adapter],
        options: EngineOptions,
        snapshots: Snapshots | None,
        progress: Callable[[int, int], None],
        say: Callable[[str], None],
    ) -> None:
        self.backbone = backbone
        self.specs = specs
        self.recipe = recipe
        self.snapshots = snapshots
        self.progress = progress
        self.say = say
        # Longest first: whoever takes longest must not begin last.
        self.queue = deque(sorted(jobs, key=lambda job: -recipe.steps(len(job.pairs))))
        room = options.within(capacity(backbone, specs))
        self.passes = Passes(
            backbone,
            specs,
            beneath,
            ConstantStore(room.constants if recipe.epochs > 1 else 0),
            columns=room.columns,
            split_prompts=options.split_prompts,
        )
        self.users = max(1, min(room.users, len(jobs)))
        self.total = sum(recipe.steps(len(job.pairs)) for job in jobs)
        self.done = 0
        self.seated = 0

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
        seat = _Seat(slot, self.seated, self.queue.popleft(), self.backbone, self.recipe)
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
        rates = [seat.rate for seat in seats]
        rows = [row for seat in seats for row in seat.next_rows()]
        while not self._gradients(rows, banks, optimizer):
            pass
        optimizer.step([seat.slot for seat in seats], rates)
        self.backbone.usage.train_tokens += sum(len(row.prompt) + len(row.target) for row in rows)
        for seat in seats:
            seat.step += 1
        self.done += len(seats)
        self.progress(self.done, self.total)
        if self.snapshots is not None:
            self.snapshots.offer(banks, optimizer)

    def _gradients(self, rows: Sequence[Row], banks: Sequence[Bank], optimizer: StackedAdamW) -> bool:
        """Every user's gradient of this step; False, and nothing changed, where memory did not suffice."""
        optimizer.zero_grad(set_to_none=True)
        batches = self.passes.batches(rows)
        try:
            evaluated = [bank.evaluated() for bank in banks]
            for batch in batches:
                device = self.backbone.model.device
                slots = torch.tensor([row.slot for row in batch], device=device)
                keys = DropoutKeys(torch.tensor([row.dropout_key for row in batch], device=device))
                self.passes.loss(batch, [own.adapter(slots, keys) for own in evaluated]).backward()
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

    def _do_less(self, largest: Sequence[Row]) -> None:
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
