"""Which advertisement sold: purchases within half an hour after a click of the same visitor."""

from engine import App, Sink, Stream, Struct, agg, bounded, windows


class Click(Struct, frozen=True):
    visitor: str
    ad: str
    ts: int


class Purchase(Struct, frozen=True):
    visitor: str
    cents: int
    ts: int


class Sold(Struct, frozen=True):
    ad: str
    cents: int


def sold(found: tuple[Click, Purchase]) -> Sold:
    """What a click has brought."""
    click, purchase = found
    return Sold(click.ad, purchase.cents)


app = App("ads", broker="memory://", partitions=4)
clicks = app.source("clicks", Click, key="visitor", time="ts", watermark=bounded("10s"))
purchases = app.source("purchases", Purchase, key="visitor", time="ts", watermark=bounded("10s"))


@app.pipeline(clicks, purchases)
def sales(clicks: Stream[str, Click], purchases: Stream[str, Purchase]) -> Sink:
    """Turnover of each advertisement, hour by hour."""
    return (
        clicks.join(purchases, within=("0s", "30m"))
        .map(sold)
        .key_by("ad")
        .window(windows.tumbling("1h"))
        .aggregate(key_as="ad", purchases=agg.count(), cents=agg.sum("cents"))
        .to("ad-sales")
    )
