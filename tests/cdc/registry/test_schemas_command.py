"""`streamforge schemas` against an embedded registry: what would break, before it does."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from cdc.registry.server import RegistryServer
from engine.runtime.cli import main

pytestmark = pytest.mark.thorough

PROGRAM = """
from engine import App, Struct
from cdc import Registry, avro, jsonschema
from typing import Annotated
from cdc.avro_types import Aliases

registry = Registry("{url}", attempts=1)

class Payment(Struct, frozen=True):
    id: str
    {fields}

app = App("pay", broker="memory://")
payments = app.source("payments", codec=avro(registry, Payment), key="id")

@app.pipeline(payments)
def refunds(payments):
    return payments.filter(lambda payment: payment.cents < 0).to("refunds", codec=avro(registry, Payment))
"""


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    running = RegistryServer().start()
    yield running
    running.close()


class Deployments:
    """Versions of a program, each in a file of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url, self._made = folder, url, 0

    def program(self, fields: str) -> str:
        self._made += 1
        path = self._folder / f"pay{self._made}.py"
        path.write_text(PROGRAM.format(url=self._url, fields=fields))
        return str(path)


@pytest.fixture
def deployments(tmp_path: Path, server: RegistryServer) -> Deployments:
    return Deployments(tmp_path, server.url)


def schemas(*args: str, status: int = 0) -> str:
    result: Result = CliRunner().invoke(main, ["schemas", *args])
    assert result.exit_code == status, result.output
    return result.output


def test_schemas_of_a_new_app_are_registered_and_listed(deployments: Deployments) -> None:
    first = deployments.program("cents: int")
    assert schemas("check", first).splitlines() == [
        "payments-value (source payments, AVRO, BACKWARD): nothing is registered, so nothing is known",
        "refunds-value (sink refunds, AVRO, BACKWARD): new, nothing to break",
    ]
    assert schemas("register", first) == "refunds-value: version 1, id 1\n"
    assert schemas("register", first) == "refunds-value: version 1, id 1\n"
    assert "refunds-value (sink refunds, AVRO, BACKWARD): version 1" in schemas("check", first)
    assert json.loads(schemas("list", first, "--json"))[1] == {
        "subject": "refunds-value", "topic": "refunds", "role": "sink", "type": "AVRO", "level": "BACKWARD", "versions": {"1": 1},
    }  # fmt: skip
    assert "refunds-value  sink refunds  AVRO  BACKWARD  versions 1 (id 1)" in schemas("list", first)


def test_schemas_that_evolve_say_what_changed_and_by_which_levels(deployments: Deployments) -> None:
    schemas("register", deployments.program("cents: int"))
    second = deployments.program('cents: int\n    note: str = ""')
    assert "refunds-value (sink refunds, AVRO, BACKWARD): compatible with version 1" in schemas("check", second)
    said = schemas("diff", second).splitlines()
    assert said[1:] == [
        "refunds-value (sink refunds, AVRO, BACKWARD)",
        '  + Payment.note: string, default ""',
        "  allowed by NONE, BACKWARD, BACKWARD_TRANSITIVE, FORWARD, FORWARD_TRANSITIVE, FULL, FULL_TRANSITIVE",
    ]
    widened = schemas("diff", deployments.program("cents: float"))
    assert "~ Payment.cents: long -> double" in widened and "  allowed by NONE, BACKWARD, BACKWARD_TRANSITIVE\n" in widened


def test_schemas_that_break_are_refused_by_check_and_by_registration(deployments: Deployments) -> None:
    schemas("register", deployments.program("cents: int"))
    broken = deployments.program("euros: float")
    said = schemas("check", broken, status=1)
    assert "refunds-value (sink refunds, AVRO, BACKWARD): BREAKS" in said
    reason = "version 1 cannot be read with the new schema: field Payment.euros is not in the written data and has no default"
    assert reason in said
    refused = schemas("register", broken, status=1)
    assert "incompatible with an earlier schema" in refused and "Payment.euros" in refused and "Traceback" not in refused
    answer = json.loads(schemas("check", broken, "--json", status=1))
    assert answer[1]["breaks"] == [reason] and answer[1]["levels"]["NONE"] is True and answer[1]["levels"]["FORWARD"] is False


def test_schemas_a_source_that_cannot_read_what_is_written_breaks(deployments: Deployments, server: RegistryServer) -> None:
    def write(fields: list[dict[str, object]]) -> None:
        schema = json.dumps({"type": "record", "name": "Pay", "fields": [{"name": "id", "type": "string"}, *fields]})
        assert httpx.post(f"{server.url}/subjects/payments-value/versions", json={"schema": schema}).status_code == 200

    httpx.put(f"{server.url}/config/payments-value", json={"compatibility": "NONE"})
    write([{"name": "cents", "type": "string"}])
    write([{"name": "cents", "type": "int"}])
    said = schemas("check", deployments.program("cents: int"))
    assert "payments-value (source payments, AVRO, NONE): reads version 2" in said
    assert "note: records of version 1 cannot be read: Pay.cents is string and would be read as long" in said
    write([])
    said = schemas("check", deployments.program("cents: int"), status=1)
    assert "records of version 3 cannot be read: field Pay.cents is not in the written data and has no default" in said


OTHER = """
from engine import App, Struct
from cdc import Registry, jsonschema

registry = Registry("{url}", attempts=1)

class Payment(Struct, frozen=True):
    id: str
    {fields}

app = App("pay", broker="memory://")
payments = app.source("payments", codec=jsonschema(registry, Payment), key="id")

@app.pipeline(payments)
def refunds(payments):
    return payments.to("refunds", codec=jsonschema(registry, Payment))
"""


def test_schemas_of_json_say_what_breaks_too(tmp_path: Path, server: RegistryServer) -> None:
    def program(fields: str) -> str:
        path = tmp_path / f"json{len(list(tmp_path.iterdir()))}.py"
        path.write_text(OTHER.format(url=server.url, fields=fields))
        return str(path)

    schemas("register", program("cents: int"))
    said = schemas("check", program("cents: str"), status=1)
    assert "refunds-value (sink refunds, JSON, BACKWARD): BREAKS" in said
    assert "version 1 cannot be read with the new schema: cents may be integer, and only string is allowed" in said
    assert "incompatible with an earlier schema" in schemas("register", program("cents: str"), status=1)
    assert "refunds-value (sink refunds, JSON, BACKWARD): compatible with version 1" in schemas("check", program("cents: float"))

    written = {"type": "object", "properties": {"id": {"type": "string"}, "cents": {"type": "string"}}, "required": ["id", "cents"]}
    body = {"schema": json.dumps(written), "schemaType": "JSON"}
    assert httpx.post(f"{server.url}/subjects/payments-value/versions", json=body).status_code == 200
    said = schemas("check", program("cents: int"), status=1)
    assert "records of version 1 cannot be read: cents may be string, and only integer is allowed" in said
    said = schemas("check", program('cents: str\n    note: str = ""'), status=1)
    assert "payments-value (source payments, JSON, BACKWARD): reads version 1" in said, "no record needs to have the new property"
    assert "note is new, and written data may hold anything there: its content model is open" in said, "of the sink"


def test_schemas_of_another_registry_and_of_none(deployments: Deployments) -> None:
    first = deployments.program("cents: int")
    other = RegistryServer().start()
    try:
        assert schemas("register", first, "--registry", other.url) == "refunds-value: version 1, id 1\n"
        assert httpx.get(f"{other.url}/subjects").json() == ["refunds-value"]
        assert "versions none" in schemas("list", first)
    finally:
        other.close()
    assert "does not answer" in schemas("list", first, "--registry", "http://127.0.0.1:9", status=1)
    assert "no source or sink has a codec with a schema registry" in schemas("check", "tests.programs.minute_revenue", status=1)
