"""Fixtures for all tests.

`kafka` is a real broker, one for the whole session: tests that use it are marked `kafka`, keep to topics, groups and
transactional ids of their own, and do not stop it (a test that must kill a broker starts a `KafkaServer` itself). Where no
broker can be run, those tests are skipped and one line says so; with CI=true they fail instead. `apicurio` is a real schema registry.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import Phase, settings

from tests.apicurio_server import ApicurioServer
from tests.effort import examples
from tests.kafka_server import KafkaServer
from tests.maven import JavaMissing

# A deadline for one example would measure the machine.
settings.register_profile("ours", deadline=None, max_examples=examples(100))
settings.load_profile("ours")
# For mutants: a failure is enough, and the smallest example of it is not worth minutes.
settings.register_profile("unshrunk", settings.get_profile("ours"), phases=(Phase.explicit, Phase.reuse, Phase.generate))

_missing = pytest.StashKey[str]()
_left_out: list[str] = []


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaServer]:
    """A running broker that the whole session shares."""
    server = KafkaServer()
    try:
        server.start()
    except JavaMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        request.config.stash[_missing] = str(error)
        pytest.skip(str(error))
    yield server
    server.stop(keep_log=request.session.testsfailed > 0)


@contextmanager
def needs_java() -> Iterator[None]:
    """Leave the test out, loudly, where a service cannot be had; with CI=true it fails."""
    try:
        yield
    except JavaMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        _left_out.append(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def apicurio() -> Iterator[ApicurioServer]:
    """A running registry that the whole session shares: tests keep to subjects of their own."""
    server = ApicurioServer()
    try:
        server.start()
    except JavaMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    yield server
    server.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say loudly that the tests on a real broker did not run."""
    if _missing in config.stash:
        terminalreporter.write_line(f"KAFKA TESTS SKIPPED: {config.stash[_missing]}", red=True, bold=True)
    for reason in dict.fromkeys(_left_out):
        terminalreporter.write_line(f"CHANGE DATA CAPTURE TESTS SKIPPED: {reason}", red=True, bold=True)
