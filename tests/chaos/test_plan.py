"""The plan of a round: the same from the same seed, and every fault gets its turn."""

from tests.chaos.plan import FAULTS, make_plan


def test_plan_of_the_same_seed_is_the_same() -> None:
    assert make_plan(3, faults=list(FAULTS), count=4, workers=2) == make_plan(3, faults=list(FAULTS), count=4, workers=2)
    assert make_plan(3, faults=list(FAULTS), count=4, workers=2) != make_plan(4, faults=list(FAULTS), count=4, workers=2)


def test_plan_takes_no_fault_twice_before_all_have_come() -> None:
    faults = ["kill", "freeze", "broker"]
    for seed in range(20):
        names = [step.fault for step in make_plan(seed, faults=faults, count=5, workers=3)]
        assert sorted(names[:3]) == sorted(faults)
        assert len(set(names[3:])) == 2


def test_plan_over_some_seeds_hits_every_worker_with_every_fault() -> None:
    steps = [step for seed in range(100) for step in make_plan(seed, faults=list(FAULTS), count=3, workers=2)]
    assert {(step.fault, step.victim) for step in steps} == {(fault, victim) for fault in FAULTS for victim in (0, 1)}
