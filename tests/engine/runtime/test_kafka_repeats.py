"""A broker that is away must not fill the log."""

import logging

import pytest

from engine.runtime.transport.kafka.repeats import Repeats, leave_out_details, say_once_in_a_while


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def texts(repeats: Repeats, *said: tuple[int, str, str]) -> list[str]:
    """Return what passes the filter."""
    records = [logging.LogRecord("aiokafka.conn", level, __file__, 1, text, (argument,), None) for level, text, argument in said]
    return [record.getMessage() for record in records if repeats.filter(record)]


def test_repeats_of_one_kind_pass_once_an_interval_and_are_counted() -> None:
    clock = Clock()
    repeats = Repeats(10.0, clock)
    failed = (logging.ERROR, "no connection to %s", "1")
    assert texts(repeats, failed, failed, failed) == ["no connection to 1"]
    clock.now_s += 9.9
    assert texts(repeats, failed) == []
    clock.now_s += 0.1
    assert texts(repeats, failed, failed) == ["no connection to 1 (3 more like it since)"]
    clock.now_s += 10.0
    assert texts(repeats, failed) == ["no connection to 1 (1 more like it since)"]


def test_repeats_of_another_kind_and_mere_information_pass() -> None:
    repeats = Repeats(10.0, Clock())
    said = [
        (logging.ERROR, "no connection to %s", "1"),
        (logging.WARNING, "no connection to %s", "1"),
        (logging.ERROR, "no leader of %s", "t"),
    ]
    assert len(texts(repeats, *said)) == 3
    assert len(texts(repeats, *[(logging.INFO, "joined %s", "g")] * 3)) == 3


def test_say_once_in_a_while_covers_the_loggers_of_a_library_once(caplog: pytest.LogCaptureFixture) -> None:
    inner, other = logging.getLogger("library-of-a-test.inner"), logging.getLogger("library-of-a-test-too")
    say_once_in_a_while("library-of-a-test")
    say_once_in_a_while("library-of-a-test")
    for _ in range(3):
        inner.error("again")
        other.error("again")
    assert [record.name for record in caplog.records].count(inner.name) == 1
    assert [record.name for record in caplog.records].count(other.name) == 3
    assert len(inner.filters) == 1


def test_leave_out_details_follows_what_is_written_and_not_what_is_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    written, display = logging.StreamHandler(), logging.Handler(logging.DEBUG)
    written.setLevel(logging.WARNING)
    monkeypatch.setattr(logging.root, "handlers", [written, display])
    monkeypatch.setattr(logging.root, "level", logging.DEBUG)
    library = logging.getLogger("chatty-library-of-a-test")
    assert library.isEnabledFor(logging.DEBUG)
    leave_out_details(library.name)
    assert not library.isEnabledFor(logging.INFO) and library.isEnabledFor(logging.WARNING)


def test_leave_out_details_keeps_a_level_that_somebody_has_set() -> None:
    library = logging.getLogger("watched-library-of-a-test")
    library.setLevel(logging.DEBUG)
    leave_out_details(library.name)
    assert library.level == logging.DEBUG
