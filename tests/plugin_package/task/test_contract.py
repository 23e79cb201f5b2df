import pytest

from lampbench.testing import task_cases


@pytest.mark.parametrize("case", task_cases("subject"), ids=str)
def test_the_task_keeps_the_contract(case):
    case.run()
