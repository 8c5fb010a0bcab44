"""Patterns as Mermaid flowcharts."""

from engine import cep


def test_draw_shows_stages_negations_groups_and_the_limit() -> None:
    pair = cep.begin("b").next('c "quoted"').optional()
    start = cep.begin("a").times(3).consecutive().not_followed_by("n")
    pattern = start.followed_by_any(pair).one_or_more().next("d").times(1, 2).within("90s")
    assert cep.draw(pattern).splitlines() == [
        "flowchart LR",
        '  s0["a {3} consecutive"]',
        '  s1{{"no n"}}',
        '  subgraph g2["{1,}"]',
        '    s3["b"]',
        '    s4["c #quot;quoted#quot; ?"]',
        "  end",
        '  s5["d {1,2}"]',
        "  s3 -->|next| s4",
        "  s0 -->|not followed by| s1",
        "  s1 -->|followed by any| g2",
        "  g2 -->|next| s5",
        '  limit>"within 90s"]',
    ]


def test_draw_greedy_loop_with_an_end() -> None:
    assert 's0["a {1,} ? greedy until"]' in cep.draw(cep.begin("a").one_or_more().greedy().until(lambda v: v).optional())
