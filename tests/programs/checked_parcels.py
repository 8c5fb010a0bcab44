"""Parcels get a price by their country; those to a country without one wait in the dead letters until it has one."""

from pathlib import Path

import msgspec

from engine import App, Sink, Stream, Struct, agg

PRICES = Path(__file__).with_name("checked_parcels.json")


class Parcel(Struct, frozen=True):
    parcel_id: str
    country: str
    grams: int


class Priced(Struct, frozen=True):
    parcel_id: str
    cents: int


app = App("checked-parcels", broker="memory://", partitions=2)
parcels = app.source("parcels", Parcel, key="country")
prices: dict[str, int] = msgspec.json.decode(PRICES.read_bytes())


def priced(parcel: Parcel) -> Priced:
    """Raises KeyError for a country without a price."""
    return Priced(parcel.parcel_id, prices[parcel.country] * parcel.grams // 1_000)


@app.pipeline(parcels)
def weigh(parcels: Stream[str, Parcel]) -> Sink:
    """What all parcels to a country weigh."""
    return parcels.aggregate(grams=agg.sum("grams"), emit="record").to("weights")


@app.pipeline(parcels)
def price(parcels: Stream[str, Parcel]) -> Sink:
    """The price of each parcel."""
    return parcels.map(priced).to("priced-parcels")
