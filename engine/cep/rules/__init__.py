"""Live rules: patterns as data, on a topic, put, changed and removed while the workers run.

    {"id": "probe", "version": 1,
     "match_recognize": "MEASURES TEST.cents AS test, LARGE.cents AS cents PATTERN (TEST X*? LARGE) WITHIN INTERVAL '10' MINUTE DEFINE …"}

    {"id": "three-fast", "version": 4, "skip": "past_last",
     "pattern": {"stages": [{"stage": "paid", "where": "kind = 'pay' AND cents > 100", "times": 3}], "within": "5m"},
     "output": {"first": "FIRST(paid.id)", "cents": "SUM(paid.cents)"}}

`rule` is the format, `pattern` makes a pattern of the algebra from JSON, `expressions` compiles its conditions and fields (the SQL
expressions of MATCH_RECOGNIZE), `compiled` fits a rule to the stream that it is for. `engine.operators.detect_rules` runs them.
"""

from engine.cep.rules.rule import Rule, RuleMatch, RuleTimedOut, parse_rule

__all__ = ["Rule", "RuleMatch", "RuleTimedOut", "parse_rule"]
