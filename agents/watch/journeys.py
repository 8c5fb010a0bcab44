"""Visits that jump from country to country: an order, some more looking around, and within half an hour an order from elsewhere."""

from agents.records import Order, PageView
from agents.watch.records import OddJourney, Step, step_of_order, step_of_view
from agents.watch.settings import app, orders, page_views
from engine import Match, Sink, Stream, cep


def is_order(step: Step) -> bool:
    """Tell orders."""
    return step.kind == "order"


def is_view(step: Step) -> bool:
    """Tell page views."""
    return step.kind == "view"


def is_from_elsewhere(step: Step, match: cep.PartialMatch) -> bool:
    """Tell orders from another country than the first one of the match."""
    return step.kind == "order" and step.country != match["here"][0].country


jump = (
    cep.begin("here", is_order)
    .next("looks", is_view).one_or_more().consecutive().greedy()
    .next("there", is_from_elsewhere)
    .within("30m")
)  # fmt: skip


def odd_journey(match: Match[Step]) -> OddJourney:
    """Shape the two orders and what lies between them."""
    (here,), (there,) = match["here"], match["there"]
    return OddJourney(
        user_id=here.user_id,
        countries=[here.country or "", there.country or ""],
        order_ids=[here.order_id or "", there.order_id or ""],
        views=len(match["looks"]),
        first_ts=here.ts,
        last_ts=there.ts,
    )


@app.pipeline(orders, page_views)
def journeys(orders: Stream[str, Order], views: Stream[str, PageView]) -> Sink:
    """Two orders of one visit from two countries."""
    steps = orders.map(step_of_order).merge(views.map(step_of_view))
    return steps.detect(jump, skip=cep.skip.past_last).select(odd_journey).to("odd-journeys")
