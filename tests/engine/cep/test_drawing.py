"""Patterns as Mermaid flowcharts."""

import re

import pytest
from hypothesis import given, settings

from engine import ConfigError, cep
from tests.effort import examples
from tests.engine.cep.test_words import sequences
from tests.engine.cep.word_oracle import Item, pattern_of


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


NAMES = ["two words", 'quo"ted', "[square]", "{curly} (round)", "end", "a-->b", "#35;", "two\nlines", "<b>&amp;`", "ünï", "no x"]
LABEL = r'"(?:[^"\n<>`#&]|#\w+;)+"'
BOX = re.compile(rf"  +(?:(?P<box>s\d+)(?:\[{LABEL}\]|\{{\{{{LABEL}\}}\}})|subgraph (?P<group>g\d+)\[{LABEL}\]|(?P<end>end))")
ARROW = re.compile(r"  ([sg]\d+) -->\|(?:not )?(?:next|followed by)(?: any)?\| ([sg]\d+)")
LIMIT = re.compile(rf"  limit>{LABEL}\]")


def check_structure(text: str) -> None:
    """Every line is a box, a frame that is closed, an arrow between what stands before it, or the limit at the end."""
    head, *lines = text.splitlines()
    assert head == "flowchart LR" and text.endswith("\n")
    known: set[str | None] = set()
    depth = limits = 0
    for line in lines:
        if arrow := ARROW.fullmatch(line):
            assert depth == 0 and set(arrow.groups()) <= known
        elif box := BOX.fullmatch(line):
            name = box["box"] or box["group"]
            assert name is None or name not in known
            known.add(name)
            depth += (box["group"] is not None) - (box["end"] is not None)
        else:
            assert LIMIT.fullmatch(line), line
            limits += 1
    assert depth == 0 and limits <= 1


@pytest.mark.parametrize("name", NAMES)
def test_draw_stage_names_of_any_letters_leave_the_structure_whole(name: str) -> None:
    inner = cep.begin(f"{name} in a group").times(2, 3).consecutive().not_followed_by(f"{name} not").next("last")
    pattern = cep.begin(name).one_or_more().allow_combinations().followed_by_any(cep.begin(inner).optional().followed_by("z")).times(2)
    text = cep.draw(pattern.not_next(f"{name}!").followed_by("end of it").within("90s"))
    check_structure(text)
    shown = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), text.replace("#quot;", '"'))
    assert f'["{name} {{1,}} combinations"]' in shown and f'{{{{"no {name}!"}}}}' in shown


@settings(max_examples=examples(60), deadline=None)
@given(sequences(3))
def test_draw_every_pattern_has_a_structure_and_all_its_stages(sequence: tuple[Item, ...]) -> None:
    try:
        pattern = pattern_of(sequence, 4)
    except ConfigError:
        return
    text = cep.draw(pattern)
    check_structure(text)
    for stage in pattern.flat():
        words = [f"no {stage.name}"] if stage.is_not else [stage.name, *[word for word in ("greedy", "until") if getattr(stage, word)]]
        assert all(word in text for word in words)


def test_draw_clause_writes_choices_out_and_numbers_them_by_preference() -> None:
    clause = cep.match_recognize(
        "PARTITION BY u ORDER BY t ALL ROWS PER MATCH PATTERN (PERMUTE(A, B) {- C -}* (D | E)?) WITHIN INTERVAL '5' MINUTE"
    )
    drawn = cep.draw(clause).splitlines()
    boxes = {line.strip().split("[")[0]: line.split('"')[1] for line in drawn if '["' in line}
    assert sorted(boxes.values()) == ["A", "A", "B", "B", "D", "E", "{- C -}"]
    ways = [tuple(line.split()) for line in drawn if "-->" in line]
    named = sorted((boxes.get(before, "start"), arrow[4:-1], boxes.get(after, after)) for before, arrow, after in ways)
    last = [("{- C -}", "1"), ("D", "2"), ("E", "3"), ("match", "4")]
    assert named == sorted(
        [("start", "1", "A"), ("start", "2", "B"), ("A", "", "B"), ("B", "", "A"), ("D", "", "match"), ("E", "", "match")]
        + [(name, number, after) for name in ("A", "B", "{- C -}") for after, number in last]
    )
    assert drawn[0] == "flowchart LR" and drawn[-1] == '  limit>"within 5m"]'


def test_draw_clause_with_an_anchor_shows_what_only_the_first_record_may() -> None:
    drawn = cep.draw(cep.match_recognize("PARTITION BY u ORDER BY t PATTERN (^ A | B)"))
    assert drawn.splitlines()[-5:] == [
        "  s0 --> s2",
        "  s1 --> match",
        "  s2 --> match",
        "  s0 -->|1, first record of the key| s1",
        "  s0 -->|2, first record of the key| s2",
    ]


def test_draw_of_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a pattern"):
        cep.draw("PATTERN (A)")  # type: ignore[arg-type]
