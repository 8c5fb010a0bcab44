"""Options: ours first, environment over arguments, nothing ignored."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.runtime.options import Options, read_options

FAUST = {"web_port", "broker_credentials", "stream_buffer_maxsize", "processing_guarantee"}


def read(environ: dict[str, str] | None = None, **given: Any) -> tuple[Options, dict[str, Any]]:
    return read_options("shop", {"broker": "memory://", **given}, FAUST, environ or {})


def test_options_defaults_are_those_of_the_documentation() -> None:
    options, rest = read()
    assert options == Options(
        "shop", "memory://", Path("var/state"), 12, 200, 60_000, "dlq", 3_600_000, None, 10.0, None, None, 3, 0, None, 60_000, 256, 300_000
    )
    assert rest == {}


def test_options_state_memory_is_shared_out() -> None:
    assert read(state_memory_mib=64)[0].limits().cache_entries_max == 65_536
    assert read({"STREAMFORGE_STATE_MEMORY_MIB": "32"})[0].state_memory_mib == 32


def test_options_of_faust_are_handed_on() -> None:
    assert read(web_port=7000, partitions=4)[1] == {"web_port": 7000}


def test_options_environment_beats_the_argument() -> None:
    environ = {"STREAMFORGE_BROKER": "kafka://a:9092,b:9092", "STREAMFORGE_PARTITIONS": "6", "STREAMFORGE_MAX_AHEAD": "none"}
    options, _ = read(environ, broker="memory://", partitions=12)
    assert (options.broker, options.partitions, options.max_ahead_ms) == ("kafka://a:9092,b:9092", 6, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"commit_intervall": "1s"}, "did you mean commit_interval="),
        ({"web_prt": 1}, "did you mean web_port="),
        ({"frobnicate": 1}, "frobnicate= is not known"),
        ({"processing_guarantee": "exactly_once"}, "always exactly once"),
        ({"topic_partitions": 3}, "use partitions="),
        ({"max_skew": "0s"}, "max_skew"),
        ({"max_skew": 60_000}, "max_skew"),
        ({"standbys": -1}, "at least 0"),
        ({"standbys": "all"}, "whole number"),
        ({"state_memory_mib": 4}, "at least 8"),
        ({"state_memory_mib": "512MiB"}, "whole number"),
        ({"instance_id": ""}, "name of its own"),
        ({"stall": 60}, "stall"),
        ({"stall": "10ms"}, "stall"),
        ({"broker_wait": 60}, "broker_wait"),
        ({"broker_wait": "soon"}, "broker_wait"),
        ({"broker": None}, "give broker='kafka://host:9092'"),
        ({"broker": "redis://x"}, "redis://x"),
        ({"broker": "localhost:9092"}, "localhost:9092"),
        ({"partitions": 0}, "at least 1"),
        ({"partitions": 2.5}, "whole number"),
        ({"partitions": "many"}, "whole number"),
        ({"commit_interval": 5}, "commit_interval"),
        ({"commit_interval": "-1s"}, "at least 0 ms"),
        ({"checkpoints": "var/checkpoints"}, "give an address such as"),
        ({"checkpoints": "nosuch://bucket"}, "nosuch"),
        ({"checkpoints": 7}, "give an address"),
        ({"checkpoints_kept": 0}, "at least 1"),
    ],
)
def test_options_wrong_one_says_what_to_write(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="app 'shop'") as raised:
        read(**given)
    assert message in str(raised.value)


def test_options_broker_wait_is_a_duration_or_none_for_ever() -> None:
    assert read(broker_wait="0s")[0].limits().broker_wait_ms == 0
    assert read({"STREAMFORGE_BROKER_WAIT": "none"}, broker_wait="5m")[0].limits().broker_wait_ms is None


def test_options_max_skew_is_a_duration_or_none() -> None:
    assert read(max_skew="5m")[0].max_skew_ms == 300_000
    assert read({"STREAMFORGE_MAX_SKEW": "none"}, max_skew="5m")[0].max_skew_ms is None


def test_options_of_standbys_and_static_membership_come_from_the_environment() -> None:
    options, _ = read({"STREAMFORGE_STANDBYS": "2", "STREAMFORGE_INSTANCE_ID": "shop-1"})
    assert (options.standbys, options.instance_id) == (2, "shop-1")


@pytest.mark.parametrize("app_id", ["", None])
def test_options_app_without_an_id_is_refused(app_id: Any) -> None:
    with pytest.raises(ConfigError, match="needs an id"):
        read_options(app_id, {"broker": "memory://"}, FAUST, {})


@pytest.mark.parametrize("token", ["short", "é" * 20, 1_234_567_890_123_456])
def test_options_web_token_that_is_easy_to_guess_or_send_wrongly_is_refused(token: Any) -> None:
    with pytest.raises(ConfigError, match="'shop': web_token must be an ASCII text of at least 16 characters"):
        read(web_token=token)
    assert read({"STREAMFORGE_WEB_TOKEN": "0123456789abcdef"})[0].web_token == "0123456789abcdef"
