"""`python -m tests.conformance FILE...`: replay conformance cases, and say how many passed."""

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.conformance import cep_cases, windows_cases

DIFFERENCES = Path(__file__).with_name("differences.toml")
DIFFERENCES_MAX = 5


def main(paths: Sequence[str], differences_path: Path = DIFFERENCES) -> int:
    """Run the cases of some files; return the exit status."""
    if not paths:
        print("usage: python -m tests.conformance FILE...", file=sys.stderr)
        return 2
    differences: Mapping[str, str] = tomllib.loads(differences_path.read_text()).get("differences", {})
    passed = failed = different = 0
    for path in paths:
        for case in json.loads(Path(path).read_text())["cases"]:
            name = case.get("id", "a case without id")
            if name in differences:
                different += 1
                continue
            message = run(case)
            if message is None:
                passed += 1
            else:
                failed += 1
                print(f"FAILED {name}: {message}")
    if len(differences) > DIFFERENCES_MAX:
        print(f"{differences_path.name} lists {len(differences)} cases; at most {DIFFERENCES_MAX} may differ")
    if different:
        print(f"{different} differ on purpose")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or len(differences) > DIFFERENCES_MAX else 0


def run(case: Mapping[str, Any]) -> str | None:
    """Replay one case; return what is wrong, None if nothing is."""
    try:
        return cep_cases.run(case) if "pattern" in case else windows_cases.run(case)
    except Exception as error:  # noqa: BLE001  # a case that breaks the runner has failed, and the others go on
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
