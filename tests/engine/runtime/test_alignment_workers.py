"""Bounded skew over workers, the decision alone: who waits for partitions that others read, and for how long; the time is handed in."""

from engine.records import TopicPartition
from engine.runtime.alignment import FORGET_S, Alignment, Said, Slowest
from tests.engine.runtime.test_alignment import P0, P1, apps, two


def other(watermark: int | None = None, *, opening: bool = False, partition: TopicPartition = P0) -> dict[TopicPartition, Said]:
    """Return what another worker says of a partition."""
    return {partition: Said(watermark, opening)}


def reads(watermark: int) -> tuple[Alignment, list[str]]:
    """Return the alignment of a worker that reads partition 1, which has come so far and has been asked whether it must wait."""
    alignment, woken = two(), []
    alignment.reached(P1, watermark, idle=False)
    alignment.must_wait(P1, lambda: woken.append("woken"))
    return alignment, woken


def waits(alignment: Alignment) -> bool:
    """Return whether partition 1 must wait."""
    return alignment.waits_for(P1) is not None


def test_alignment_slower_partition_of_another_worker_holds_until_it_is_heard_to_have_moved() -> None:
    alignment, woken = reads(111)
    assert not waits(alignment)
    alignment.hear(other(100), 0.0)
    assert alignment.must_wait(P1, lambda: woken.append("woken"))
    assert alignment.waits_for(P1) == Slowest(P0, 100, is_here=False)
    alignment.hear(other(100), 1.0)
    assert woken == []
    alignment.hear(other(101), 2.0)
    assert woken == ["woken"] and not waits(alignment)


def test_alignment_faster_partition_of_another_worker_holds_nobody() -> None:
    alignment, _ = reads(100)
    alignment.hear(other(1_000_000), 0.0)
    assert not waits(alignment)


def test_alignment_worker_that_says_nothing_any_more_is_forgotten_and_counts_again_when_it_comes_back() -> None:
    alignment, woken = reads(200)
    alignment.hear(other(100), 50.0)
    assert alignment.must_wait(P1, lambda: woken.append("woken"))
    assert alignment.forget(50.0 + FORGET_S) == [] and waits(alignment)
    assert alignment.forget(50.1 + FORGET_S) == [P0]
    assert woken == ["woken"] and not waits(alignment)
    assert alignment.forget(99.0 + FORGET_S) == []
    alignment.hear(other(150), 100.0)
    assert alignment.waits_for(P1) == Slowest(P0, 150, is_here=False)


def test_alignment_partition_of_another_worker_that_is_idle_or_has_no_record_yet_holds_nobody() -> None:
    alignment, woken = reads(200)
    alignment.hear(other(100), 0.0)
    assert alignment.must_wait(P1, lambda: woken.append("woken"))
    alignment.hear(other(), 1.0)
    assert woken == ["woken"] and not waits(alignment)
    assert alignment.forget(100.0) == []  # nobody waited for it


def test_alignment_what_is_said_last_of_a_partition_counts_whoever_says_it() -> None:
    alignment, _ = reads(200)
    alignment.hear(other(100), 0.0)
    alignment.hear(other(195), 1.0)  # its new owner
    assert not waits(alignment)
    alignment.hear(other(100), 1.5)  # the old one, back from a long sleep
    assert waits(alignment)
    alignment.hear(other(196), 2.0)
    assert not waits(alignment)


def test_alignment_partition_being_opened_elsewhere_counts_with_what_was_heard_of_it_last() -> None:
    alignment, _ = reads(200)
    alignment.hear(other(100), 0.0)
    for second in range(1, 60):  # its restore takes long
        alignment.hear(other(opening=True), float(second))
        assert alignment.forget(float(second)) == []
        assert alignment.waits_for(P1) == Slowest(P0, 100, is_here=False, is_opening=True)
    alignment.hear(other(198), 60.0)
    assert not waits(alignment)


def test_alignment_partition_being_opened_elsewhere_of_which_nothing_is_known_limits_the_others_to_the_skew_from_where_they_are() -> None:
    alignment, woken = reads(500)
    alignment.hear(other(opening=True), 0.0)
    assert not waits(alignment)
    alignment.reached(P1, 511, idle=False)
    assert alignment.must_wait(P1, lambda: woken.append("woken"))
    assert alignment.waits_for(P1) == Slowest(P0, None, is_here=False, is_opening=True)
    alignment.hear(other(505), 1.0)
    assert woken == ["woken"] and not waits(alignment)


def test_alignment_partition_that_moves_here_counts_with_what_was_heard_of_it_until_it_is_read() -> None:
    alignment, woken = reads(200)
    alignment.hear(other(100), 0.0)
    alignment.opens([P0])
    assert alignment.must_wait(P1, lambda: woken.append("woken"))
    assert alignment.waits_for(P1) == Slowest(P0, 100, is_here=True, is_opening=True)
    alignment.reached(P0, 195, idle=False)
    assert woken == ["woken"] and not waits(alignment)
    alignment.hear(other(100), 1.0)  # its old owner knows less than this worker
    assert not waits(alignment)


def test_alignment_partition_that_is_lost_counts_with_what_this_worker_said_of_it_itself() -> None:
    alignment, _ = reads(200)
    alignment.reached(P0, 195, idle=False)
    alignment.hear(alignment.report(), 0.0)
    alignment.reached(P1, 210, idle=False)
    alignment.leave([P0])
    assert alignment.waits_for(P1) == Slowest(P0, 195, is_here=False)
    assert alignment.forget(1.0 + FORGET_S) == [P0]
    assert not waits(alignment)


def test_alignment_report_says_what_is_read_what_is_being_opened_and_what_nobody_needs_to_wait_for() -> None:
    alignment = Alignment(10, apps("clicks", "views", partitions=3).plan())
    views = TopicPartition("views", 1)
    alignment.opens([P0, P1, views, TopicPartition("app-control", 0)])
    alignment.reached(P0, 100, idle=False)
    alignment.reached(views, 100, idle=True)
    assert alignment.report() == {P0: Said(100), P1: Said(is_opening=True), views: Said()}
    alignment.leave([P0, P1])
    assert alignment.report() == {views: Said()}


def test_alignment_newcomer_goes_on_by_the_skew_only_until_everybody_has_been_heard() -> None:
    alignment, woken = Alignment(10, apps("clicks", partitions=3).plan()), []
    alignment.listen()
    alignment.opens([P1])
    alignment.reached(P1, 500, idle=False)
    assert not waits(alignment)
    alignment.reached(P1, 511, idle=False)
    assert alignment.must_wait(P1, lambda: woken.append("woken"))
    alignment.hear(other(600), 0.0)
    assert alignment.waits_for(P1) == Slowest(TopicPartition("clicks", 2), None, is_here=False)
    alignment.hear(other(partition=TopicPartition("clicks", 2)), 0.5)
    assert woken == ["woken"] and not waits(alignment)


def test_alignment_newcomer_waits_no_longer_for_those_who_say_nothing() -> None:
    alignment, woken = two(), []
    alignment.listen()
    alignment.reached(P1, 500, idle=False)
    alignment.reached(P1, 511, idle=False)
    assert alignment.must_wait(P1, lambda: woken.append("woken"))
    alignment.wait_no_longer()
    assert woken == ["woken"] and not waits(alignment)


def test_alignment_worker_that_has_everything_listens_to_nobody() -> None:
    alignment = two()
    alignment.listen()
    alignment.opens([P0, P1])
    alignment.reached(P0, 495, idle=False)
    alignment.reached(P1, 500, idle=False)
    alignment.reached(P1, 505, idle=False)
    assert not waits(alignment)


def test_alignment_passes_over_what_the_app_does_not_read() -> None:
    alignment, _ = reads(200)
    alignment.hear(
        {TopicPartition("gone", 0): Said(100), TopicPartition("clicks", 2): Said(100), TopicPartition("clicks", -1): Said(1)}, 0.0
    )
    assert not waits(alignment)


def test_alignment_other_group_of_another_worker_holds_nobody() -> None:
    alignment = Alignment(10, apps("clicks", "views", apart=True).plan())
    alignment.reached(P1, 200, idle=False)
    alignment.hear({TopicPartition("views", 0): Said(100)}, 0.0)
    assert not waits(alignment)


def test_alignment_tells_the_others_soon_when_the_slowest_has_moved_by_a_quarter_of_the_skew() -> None:
    alignment, news = Alignment(40, apps("clicks").plan()), []
    alignment.on_news = lambda: news.append("news")
    alignment.reached(P0, 100, idle=False)
    assert news == ["news"]  # there was nothing before
    alignment.report()
    alignment.reached(P1, 500, idle=False)  # not the slowest
    alignment.reached(P0, 110, idle=False)
    assert news == ["news"]
    alignment.reached(P0, 111, idle=False)
    assert news == ["news"] * 2
    alignment.report()
    alignment.reached(P0, 111, idle=True)
    assert news == ["news"] * 3
