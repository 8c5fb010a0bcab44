"""The life of a task: only the transitions of the table."""

import itertools

import pytest

from engine.runtime.lifecycle import ALLOWED, Lifecycle, Phase


def test_lifecycle_ordinary_life_is_allowed() -> None:
    life = Lifecycle()
    for phase in (Phase.RUNNING, Phase.BROKEN, Phase.OPENING, Phase.RUNNING, Phase.CLOSING, Phase.CLOSED):
        life.to(phase)
    assert life.phase is Phase.CLOSED


@pytest.mark.parametrize(("old", "new"), [pair for pair in itertools.product(Phase, Phase) if pair[1] not in ALLOWED[pair[0]]])
def test_lifecycle_other_transition_is_a_bug(old: Phase, new: Phase) -> None:
    life = Lifecycle()
    life.phase = old
    with pytest.raises(AssertionError, match=f"{old.value} to {new.value}"):
        life.to(new)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.CLOSED])
def test_lifecycle_every_phase_can_be_closed(phase: Phase) -> None:
    assert Phase.CLOSED in ALLOWED[phase]
