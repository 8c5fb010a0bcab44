"""`streamforge pipelines`: the graph of an app."""

import click
import msgspec

from engine.drawing import describe_plan, draw_mermaid, draw_text
from engine.runtime.app import App
from engine.runtime.loading import load_app


@click.command()
@click.argument("pipelines")
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "json"]), default="text", help="Text by default.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def pipelines(pipelines: str, form: str, as_json: bool) -> None:
    """Show the graph of PIPELINES: what reads which topic, what keeps state, where records go."""
    plan = load_app(pipelines, App).topology.plan()
    if as_json or form == "json":
        click.echo(msgspec.json.encode(describe_plan(plan)))
    else:
        click.echo(draw_mermaid(plan) if form == "mermaid" else draw_text(plan), nl=False)
