"""Whatever the order of arrival, staging, snapshots and marts equal the oracle and a clean rebuild.

A few stories here, always the same; `make prove` tells many others, and prints the smallest that fails.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, example, given, settings

from tests.prove.machine import Machine
from tests.prove.streams import LATE_VERSION, Example, examples


@settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,  # the same stories each time: make prove tells others, and finds the smallest that fails
    phases=(Phase.explicit, Phase.generate),
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@example(example=LATE_VERSION)
@given(example=examples())
def test_INV2_any_story_ends_as_the_oracle_says_and_as_a_clean_rebuild(machine: Machine, example: Example) -> None:
    machine.run(example)
