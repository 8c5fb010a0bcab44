"""Parcels with the address of their customer, as it was when the parcel was packed."""

from engine import App, Sink, Stream, Struct, Table, agg, bounded


class Customer(Struct, frozen=True):
    customer_id: str
    city: str
    moved_ms: int


class Parcel(Struct, frozen=True):
    parcel_id: str
    customer_id: str
    packed_ms: int


class Label(Struct, frozen=True):
    parcel_id: str
    city: str | None


def label(found: tuple[Parcel, Customer | None]) -> Label:
    """What is printed: the city is left open for a customer whom nobody knows."""
    parcel, customer = found
    return Label(parcel.parcel_id, None if customer is None else customer.city)


app = App("shipping", broker="memory://", partitions=4)
customers = app.table("customers", Customer, key="customer_id", time="moved_ms", watermark=bounded("10s"), versions="30d")
parcels = app.source("parcels", Parcel, key="parcel_id", time="packed_ms", watermark=bounded("10s"))


@app.pipeline(parcels, customers)
def labels(parcels: Stream[str, Parcel], customers: Table[str, Customer]) -> list[Sink]:
    """A label for each parcel, and how many customers each city has."""
    return [
        parcels.as_of(customers, "customer_id", how="left").map(label).to("labels", key="parcel_id"),
        customers.group_by("city").aggregate(key_as="city", customers=agg.count()).to("customers-by-city"),
    ]
