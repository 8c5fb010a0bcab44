'''MATCH_RECOGNIZE: patterns over the records of a key, written in SQL.

    payments = cep.match_recognize("""
        PARTITION BY user_id ORDER BY ts
        MEASURES SMALL.order_id AS test_order, LARGE.order_id AS order_id, COUNT(*) AS orders
        ONE ROW PER MATCH
        AFTER MATCH SKIP PAST LAST ROW
        PATTERN (SMALL X*? LARGE) WITHIN INTERVAL '10' MINUTE
        DEFINE SMALL AS amount_cents < 500, LARGE AS LARGE.amount_cents > 100 * SMALL.amount_cents
    """)
    orders.detect(payments).to("alerts")          # {"user_id": ..., "test_order": ..., "order_id": ..., "orders": 3}

What is meant is what the standard says of a finished table (ISO/IEC 9075-2:2016, sections 7.6 to 7.9; ISO/IEC TR 19075-5), given out as
soon as no later row can change it. That differs from the pattern algebra of `engine.cep`: rows follow each other without a gap, one
match is tried at a time, and of the matches that begin at a row only the preferred one comes out.

On an endless stream:

    PARTITION BY       must be there; the stream is keyed by it if it is not yet
    ORDER BY           the event time, ascending; more columns decide among rows of the same time
    ^                  the first record of a key: something is then kept of every key for ever, as for MATCH_NUMBER() and PREV
    $ and DESC         refused: there is no last record
    A+ at the end      comes out when a row ends it, at its WITHIN, or when all input ends (at the time of its last record)
    NEXT               makes its row wait for the rows asked for
    WITHIN             as in Apache Flink: rows as far apart as the limit, or farther, are not in one match
    AFTER MATCH SKIP   to a variable that took no row, or to the first row of the match, goes on with the next row; it is refused where
                       that could be no other way

`clause` and `row_pattern` parse, `automaton` orders the pattern by preference, `expressions` compiles what DEFINE and MEASURES ask for
(by `sql`, the only module that knows the SQL parser, sqlglot: `pip install "streamforge[sql]"`), `matcher` runs it.
'''

from engine.cep.recognize.recognizer import Recognizer
from engine.errors import ConfigError


def match_recognize(sql: str) -> Recognizer:
    """Compile a MATCH_RECOGNIZE clause; `stream.detect` takes what comes back.

    Raises:
        ConfigError: It is not one, or asks for what a stream cannot give; the message points at line and column. Or there is no SQL parser.
    """
    if not isinstance(sql, str):
        raise ConfigError(f"match_recognize({sql!r}): the text of a clause is needed")
    try:
        return Recognizer(sql)
    except RecursionError:
        raise ConfigError("match_recognize, line 1, column 1: parentheses or operators nest too deeply; write it in fewer levels") from None


__all__ = ["Recognizer", "match_recognize"]
