import pytest

from lampbench.testing import contract_cases


@pytest.mark.parametrize("case", contract_cases("latest") + contract_cases("bias"), ids=str)
def test_the_method_keeps_the_contract(case):
    case.run()
