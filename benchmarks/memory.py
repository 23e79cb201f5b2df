"""Peak memory of adapting many users against few, on the mini suite's model.

python benchmarks/memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

from lampbench.core import User
from lampbench.runner import Plan, Planner, Settings

_FEW, _MANY = 10, 1000


def adapt(method: str, users: int) -> None:
    """Adapt invented users, four items each, and print the peak in MB."""
    from lampbench.backbone import Decoding, TransformersBackbone

    plan = Planner(Settings(device="cpu")).plan(method, "lamp5", {"epochs": 2})
    assert isinstance(plan, Plan)
    assert plan.backbone is not None
    backbone = TransformersBackbone.load(plan.backbone, decoding=Decoding(), batch_size=32, seed=0)
    trained = plan.method_type(task=plan.task, config=plan.config, seed=0, backbone=backbone)
    items = [item for user in plan.dataset.users for item in user.history]
    people = [User(f"u{i}", tuple(items[(4 * i + j) % len(items)] for j in range(4))) for i in range(users)]
    for start in range(0, users, trained.users_at_once):
        trained.adapt(people[start : start + trained.users_at_once])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Each measurement in a process of its own."""
    if len(sys.argv) == 3:
        adapt(sys.argv[1], int(sys.argv[2]))
        return
    for method in ("user-lora", "reft"):
        peaks = {}
        for users in (_FEW, _MANY):
            command = [sys.executable, __file__, method, str(users)]
            peaks[users] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        print(f"{method}: {_FEW} users {peaks[_FEW]} MB, {_MANY} users {peaks[_MANY]} MB")


if __name__ == "__main__":
    main()
