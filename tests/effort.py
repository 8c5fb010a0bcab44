"""How hard the property tests try: the environment's `TEST_EFFORT` is check, test (the default) or long.

`make check` must take less than a minute and tries a part of the examples, `make test` all that a test asks for, `make test-long`
many times that. A test says what it wants by `@settings(max_examples=examples(50), deadline=None)`.
"""

import os
from fractions import Fraction

EFFORTS = {"check": Fraction(1, 10), "test": Fraction(1), "long": Fraction(20)}
EFFORT = os.environ.get("TEST_EFFORT", "test")
assert EFFORT in EFFORTS, f"TEST_EFFORT is one of {', '.join(EFFORTS)}, not {EFFORT!r}"


def examples(count: int) -> int:
    """Return the number of examples to try where `make test` tries `count`; at least five."""
    return max(5, int(count * EFFORTS[EFFORT]))
