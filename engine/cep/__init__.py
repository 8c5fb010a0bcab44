"""Complex event processing: patterns over the records of a key, in event-time order.

    three = cep.begin("order").times(3).within("5m")
    orders.detect(three, skip=cep.skip.past_last).select(lambda match: {"user_id": match.key, "orders": match["order"]})

`pattern` is the algebra, `nfa` compiles it into an automaton, `matcher` runs that over the records of a key, `linear` runs the
plain sequences among them faster. Semantics as in Apache Flink 2.3 (docs, "Event Processing (CEP)"); the idea of sharing partial
matches is from Agrawal et al., "Efficient Pattern Matching over Event Streams", SIGMOD 2008. `recognize` is MATCH_RECOGNIZE, which
has rules of its own; `rules` are patterns as data, that change while they run.
"""

from engine.cep import skip
from engine.cep.conditions import PartialMatch
from engine.cep.drawing import draw
from engine.cep.explain import Explained
from engine.cep.match import Match, TimedOut
from engine.cep.pattern import Pattern, begin
from engine.cep.recognize import match_recognize
from engine.cep.rules import Rule, RuleMatch, RuleTimedOut
from engine.cep.skip import Skip
from engine.cep.story import Told

__all__ = [
    "Explained",
    "Match",
    "PartialMatch",
    "Pattern",
    "Rule",
    "RuleMatch",
    "RuleTimedOut",
    "Skip",
    "TimedOut",
    "Told",
    "begin",
    "draw",
    "match_recognize",
    "skip",
]
