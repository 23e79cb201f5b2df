import pytest

from lampbench.testing import contract_cases

# A model of three million parameters moves at higher rates than the published one.
BIAS = {"learning_rate": 0.1, "clip": 1.0}


@pytest.mark.parametrize("case", contract_cases("latest") + contract_cases("bias", settings=BIAS), ids=str)
def test_the_method_keeps_the_contract(case):
    case.run()
