"""A price that falls by a tenth or more below where it stood, within an hour; what it stood at is part of the condition."""

from engine import App, Match, Sink, Stream, Struct, bounded, cep


class Quote(Struct, frozen=True):
    symbol: str
    cents: int
    ts: int


class Drop(Struct, frozen=True):
    symbol: str
    from_cents: int
    to_cents: int
    took_ms: int


def is_drop(quote: Quote, match: Match[Quote]) -> bool:
    """Whether a quote lies a tenth below the one that the match began with."""
    base = match["base"][0]
    return quote.cents * 10 <= base.cents * 9


def describe(match: Match[Quote]) -> Drop:
    """Shape a match into what is sent on."""
    base = match["base"][0]
    low = match["low"][0]
    return Drop(base.symbol, base.cents, low.cents, match.end_ms - match.start_ms)


app = App("price-drop", broker="memory://", partitions=4)
quotes = app.source("quotes", Quote, key="symbol", time="ts", watermark=bounded("5s"))
pattern = cep.begin("base", of=Quote).followed_by("low", where=is_drop).within("1h")


@app.pipeline(quotes)
def drops(quotes: Stream[str, Quote]) -> Sink:
    """Falling prices."""
    return quotes.detect(pattern, skip=cep.skip.past_last).select(describe).to("drops")
