"""A pattern as a Mermaid flowchart.

    flowchart LR
      s0["order {3}"]
      s1{{"no refund"}}
      s2["payment ?"]
      s0 -->|not followed by| s1
      s1 -->|followed by| s2
      limit>"within 5m"]

Repetitions stand in braces as in regular expressions, "?" is optional; a negation has six corners, a group is a frame.

What `cep.match_recognize` gives is drawn as its automaton: a box for each place of a variable, all choices written out, the ways on
numbered by preference.

    flowchart LR
      s0(("start"))
      s1["A"]
      s2["B"]
      match(("match"))
      s0 --> s1
      s1 -->|1| s1
      s1 -->|2| s2
      s2 --> match
"""

from collections.abc import Iterator

from engine.cep.pattern import Pattern, Stage
from engine.cep.recognize.automaton import ACCEPT
from engine.cep.recognize.recognizer import Recognizer
from engine.errors import ConfigError

_WORDS = {"next": "next", "followed_by": "followed by", "followed_by_any": "followed by any", "not_next": "not next"}
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def draw(pattern: Pattern | Recognizer) -> str:
    """Return a pattern, or a MATCH_RECOGNIZE clause, as the text of a Mermaid flowchart.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(pattern, Recognizer):
        return _draw_rows(pattern)
    if not isinstance(pattern, Pattern):
        raise ConfigError(f"draw: {pattern!r} is neither a pattern nor what cep.match_recognize gives")
    drawing = _Drawing()
    drawing.sequence(pattern, "  ")
    limit = [] if pattern.limit_ms is None else [f'  limit>"within {_duration(pattern.limit_ms)}"]']
    return "\n".join(["flowchart LR", *drawing.boxes, *drawing.arrows, *limit]) + "\n"


def _draw_rows(recognizer: Recognizer) -> str:
    automaton, query = recognizer.automaton, recognizer.query
    boxes = ['  s0(("start"))']
    for state, label in enumerate(automaton.labels[1:], 1):
        name = _escaped(query.variables[label])
        boxes.append(f'  s{state}["{"{- " + name + " -}" if automaton.excluded[state] else name}"]')
    arrows: list[str] = []
    for state, (goes_on, accepts) in enumerate(zip(automaton.goes_on, automaton.accepts, strict=True)):
        arrows += _ways(state, [*goes_on, *([ACCEPT] if accepts else [])])
    first, empty = automaton.at_partition_start
    if automaton.at_partition_start != (automaton.goes_on[0], automaton.accepts[0]):
        arrows += _ways(0, [*first, *([ACCEPT] if empty else [])], "first record of the key")
    limit = [] if query.within_ms is None else [f'  limit>"within {_duration(query.within_ms)}"]']
    return "\n".join(["flowchart LR", *boxes, '  match(("match"))', *arrows, *limit]) + "\n"


def _ways(state: int, targets: list[int], when: str = "") -> Iterator[str]:
    """Yield the ways on from a state, numbered by preference where there is a choice."""
    for number, target in enumerate(targets, 1):
        words = ", ".join([str(number)] * (len(targets) > 1) + [when] * bool(when))
        yield f"  s{state} -->{f'|{words}|' if words else ''} {'match' if target == ACCEPT else f's{target}'}"


class _Drawing:
    def __init__(self) -> None:
        self.boxes: list[str] = []
        self.arrows: list[str] = []
        self._count = 0

    def sequence(self, pattern: Pattern, indent: str) -> None:
        """Draw stages one after the other."""
        names = [self._stage(stage, indent) for stage in pattern.stages]
        for before, name, stage in zip(names, names[1:], pattern.stages[1:], strict=False):
            self.arrows.append(f"  {before} -->|{_WORDS.get(stage.contiguity, 'not followed by')}| {name}")

    def _stage(self, stage: Stage, indent: str) -> str:
        number, self._count = self._count, self._count + 1
        if stage.group is not None:
            name = f"g{number}"
            self.boxes.append(f'{indent}subgraph {name}["{" ".join(_quantifiers(stage)) or " "}"]')
            self.sequence(stage.group, indent + "  ")
            self.boxes.append(f"{indent}end")
            return name
        name = f"s{number}"
        text = _escaped(stage.name)
        text = f"no {text}" if stage.is_not else " ".join([text, *_quantifiers(stage)])
        self.boxes.append(f'{indent}{name}{{{{"{text}"}}}}' if stage.is_not else f'{indent}{name}["{text}"]')
        return name


def _quantifiers(stage: Stage) -> Iterator[str]:
    if stage.quantified:
        yield f"{{{stage.least}}}" if stage.least == stage.most else f"{{{stage.least},{'' if stage.most is None else stage.most}}}"
        if stage.inner != "relaxed":
            yield stage.inner
    if stage.optional:
        yield "?"
    if stage.greedy:
        yield "greedy"
    if stage.until is not None:
        yield "until"
    if stage.step_limit_ms is not None:
        yield f"within {_duration(stage.step_limit_ms)} of the one before"


def _escaped(name: str) -> str:
    """Return a name so that a quoted label shows it as it is, on one line."""
    odd = {letter: f"#{ord(letter)};" for letter in name if letter in "#<>&`" or not letter.isprintable()} | {'"': "#quot;"}
    return "".join(odd.get(letter, letter) for letter in name)


def _duration(limit_ms: int) -> str:
    return next(f"{limit_ms // size}{unit}" for unit, size in _UNITS if limit_ms % size == 0)
