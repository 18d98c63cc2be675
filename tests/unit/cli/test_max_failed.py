"""What `--max-failed` takes, and how many fields it accepts."""

from __future__ import annotations

import pytest

from cellcount_core.cli.settings import build_job
from cellcount_core.config import accepted_failures
from cellcount_core.domain.errors import ConfigFault


def parsed(value: object) -> int | str | None:
    tree = {"input": "in", "output": "out", "execution": {"max_failed": value}}
    return build_job(tree, "test").execution.max_failed


@pytest.mark.parametrize(
    ("given", "fields", "accepted"),
    [
        (None, 1000, 0),
        (0, 1000, 0),
        (7, 1000, 7),
        ("7", 3, 7),
        ("5%", 1000, 50),
        ("5%", 19, 0),
        ("5%", 20, 1),
        ("0.1%", 3000, 3),
        ("0.07%", 10_000, 7),
        ("100%", 8, 8),
    ],
)
def test_a_number_is_taken_as_it_is_and_a_share_is_rounded_down(
    given: object, fields: int, accepted: int
) -> None:
    assert accepted_failures(parsed(given), fields) == accepted


@pytest.mark.parametrize("given", [-1, "-1", "101%", "5 %", "%", "some", 0.5, True, "1e3%"])
def test_anything_else_is_refused_with_what_is_expected(given: object) -> None:
    with pytest.raises(ConfigFault, match=r"execution\.max_failed: must be a number of fields such as 20"):
        parsed(given)
