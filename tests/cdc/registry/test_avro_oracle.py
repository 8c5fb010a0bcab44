"""Our rules of compatibility against Avro's own Java library, on thousands of random pairs of schemas."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from cdc.avro_values import check_schema
from cdc.registry.rules import breaks
from engine.errors import RecordError
from tests.cdc.registry.avro_pairs import SchemaMaker
from tests.maven import JavaMissing, jars, java_command, java_program

pytestmark = [pytest.mark.cdc, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("java") / "AvroOracle.java"
PAIRS = 6_000


def ask_java(pairs: list[tuple[str, str]]) -> list[str]:
    """Return what the library says of (reader, writer) pairs."""
    try:
        java, class_path = java_program(17), jars("avro-1.12.0", ["org.apache.avro:avro:1.12.0"])
    except JavaMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    command = [*java_command(java, 256), "-cp", class_path, str(PROGRAM)]
    lines = "".join(f"{reader}\t{writer}\n" for reader, writer in pairs)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_rules_say_what_avros_java_library_says_of_random_pairs() -> None:
    seed = 20_250_101
    print("seed", seed)
    maker = SchemaMaker(seed)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < PAIRS:
        old, new = maker.pair()
        try:
            check_schema(old), check_schema(new)
        except RecordError:
            continue
        pairs += [(json.dumps(new), json.dumps(old)), (json.dumps(old), json.dumps(new))]
    answers = ask_java(pairs)
    assert len(answers) == len(pairs)
    counts: Counter[str] = Counter(answer.split()[0] for answer in answers)
    print(counts)
    wrong = [
        f"reader {reader}\nwriter {writer}\njava   {answer}\nours   {ours}"
        for (reader, writer), answer in zip(pairs, answers, strict=True)
        if not answer.startswith("error")
        and (answer == "true") != (not (ours := breaks(reader=json.loads(reader), writer=json.loads(writer))))
    ]
    assert counts["true"] > PAIRS // 5 and counts["false"] > PAIRS // 5
    assert not wrong, f"{len(wrong)} differ:\n" + "\n\n".join(wrong[:5])
