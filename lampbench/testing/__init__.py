"""The contract of a method as checks, for a plug-in's own tests and for ``lampbench test-method``.

In a test file of the plug-in's package::

    import pytest

    from lampbench.testing import contract_cases


    @pytest.mark.parametrize("case", contract_cases("latest"), ids=str)
    def test_latest_keeps_the_contract(case):
        case.run()

Everything is tried on three users a task of the mini suite with the bundled model: no network, no GPU.
"""

from lampbench.testing._book import Outcome
from lampbench.testing._cases import Case, contract_cases
from lampbench.testing._checks import CHECKS, Check
from lampbench.testing._errors import ContractError
from lampbench.testing._fixture import TASKS

__all__ = ["CHECKS", "TASKS", "Case", "Check", "ContractError", "Outcome", "contract_cases"]
