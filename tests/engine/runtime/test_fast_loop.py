"""uvloop is chosen for workers, unless somebody has chosen already."""

import asyncio
from collections.abc import Iterator

import pytest

from engine.runtime.fast_loop import use_uvloop

uvloop = pytest.importorskip("uvloop")


@pytest.fixture(autouse=True)
def same_policy_afterwards() -> Iterator[None]:
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(None)
    yield
    asyncio.set_event_loop_policy(before)


def loop_class() -> type[asyncio.AbstractEventLoop]:
    """Return what the policy makes."""
    loop = asyncio.get_event_loop_policy().new_event_loop()
    loop.close()
    return type(loop)


def test_use_uvloop_is_for_the_loops_made_after_it() -> None:
    assert use_uvloop(["agents", "worker", "--loglevel", "info"])
    assert loop_class() is uvloop.Loop


@pytest.mark.parametrize("arguments", [["app", "-L", "aio", "worker"], ["app", "--loop=aio", "worker"], ["app", "-Laio"]])
def test_use_uvloop_leaves_the_choice_to_the_command_line(arguments: list[str]) -> None:
    assert not use_uvloop(arguments)
    assert loop_class() is not uvloop.Loop


def test_use_uvloop_leaves_a_policy_that_somebody_has_set() -> None:
    class Own(asyncio.DefaultEventLoopPolicy):
        pass

    asyncio.set_event_loop_policy(Own())
    assert not use_uvloop(["app", "worker"])
