"""Whether a soak was right: memory and files flat, and each order counted once."""

from tests.soak.run import Found

GROWTH_MIB_MAX, GROWTH_MAX = 24.0, 0.08
FILES_MAX = 8


def judge(found: Found) -> list[str]:
    """Return what is wrong. Memory may differ by what an allocator does: a little of it, and no more whatever the number of records."""
    wrong = []
    for what, grown in (("orders", found.by_records), ("rebalances", found.by_rebalances)):
        assert grown is not None
        if grown.mib > max(GROWTH_MIB_MAX, GROWTH_MAX * grown.early.rss_mib):
            wrong.append(f"memory grows over {what}: {grown}")
        if grown.files > FILES_MAX:
            wrong.append(f"open files grow over {what}: {grown}")
    for topic, count in found.counted.items():
        if count != found.sent:
            wrong.append(f"{topic} counts {count} of {found.sent} orders, {found.late.get(topic, 0)} were late for it")
    return wrong
