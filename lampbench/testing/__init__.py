"""The contracts of plug-ins as checks, for a plug-in's own tests and for ``lampbench test-method`` and ``test-task``.

In a test file of the plug-in's package:

    import pytest

    from lampbench.testing import contract_cases, task_cases


    @pytest.mark.parametrize("case", contract_cases("latest") + task_cases("subject"), ids=str)
    def test_the_plugin_keeps_the_contract(case):
        case.run()

Methods are tried on three users per task of the mini suite with the bundled model, tasks on made-up users: no network,
no GPU.
"""

from lampbench.testing._contract import Case, Check, ContractError, Outcome
from lampbench.testing._fixture import TASKS
from lampbench.testing._method_contract import CHECKS, contract_cases
from lampbench.testing._state_files import check_files, contents, saving
from lampbench.testing._task_contract import TASK_CHECKS, task_cases

__all__ = [
    "CHECKS",
    "TASKS",
    "TASK_CHECKS",
    "Case",
    "Check",
    "ContractError",
    "Outcome",
    "check_files",
    "contents",
    "contract_cases",
    "saving",
    "task_cases",
]
