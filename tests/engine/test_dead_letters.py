"""The reason in a dead letter's headers."""

import traceback

from engine.dead_letters import firing_headers


def _inner(value: object) -> None:
    raise ValueError(f"no {value}")


def _outer(value: object) -> None:
    try:
        _inner(value)
    except ValueError as error:
        raise RuntimeError("outer") from error


def _while(value: object) -> None:
    try:
        _outer(value)
    finally:
        _inner(value)


def _caught(act: object) -> BaseException:
    try:
        act(1)  # type: ignore[operator]
    except (ValueError, RuntimeError) as error:
        return error
    raise AssertionError


def test_dead_letter_traceback_is_pythons_but_for_the_marks_below_the_lines() -> None:
    for act in (_inner, _outer, _while):
        error = _caught(act)
        headers = dict(firing_headers(name="t", timestamp_ms=1, pipeline="p", operator="o", error=error))
        lines = "".join(traceback.format_exception(error)).splitlines()
        expected = [line for line in lines if set(line) - set(" ^~") or not line]
        assert headers["traceback"].decode().splitlines() == expected
