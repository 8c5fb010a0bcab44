"""The pattern cases of tests/conformance, one test a case."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import cep_cases

CASES = json.loads((Path(__file__).parents[2] / "conformance" / "cep.json").read_text())["cases"]


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_gives_what_flink_gives(case: dict[str, Any]) -> None:
    assert cep_cases.run(case) is None


def test_case_with_another_outcome_is_reported() -> None:
    case = next(case for case in CASES if case["id"] == "NFAITCase.testNoConditionNFA")
    assert "missing" in (cep_cases.run({**case, "emitted_on": [1, 2, 3, 3]}) or "")
    assert "unexpected" in (cep_cases.run({**case, "expect_by_stage": case["expect_by_stage"][1:], "emitted_on": [2, 3, 4]}) or "")
    assert "late" in (cep_cases.run({**case, "late": [1]}) or "")
    assert "no error" in (cep_cases.run({**case, "expect_error": "skip_target_missing_in_match"}) or "")
