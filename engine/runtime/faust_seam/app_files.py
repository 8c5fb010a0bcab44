"""`faust -A hello.py`: a file named as the app, where Faust imports modules only.

Faust imports `hello`, finds no `py` in it, and then imports `hello.py` as if `hello` were a package. Python looks once more for the
whole name among the loaded modules when it has imported the part before the dot, and by then the file has made its `App`: so the
app registers its module under the name of the file. It works for a file in the working directory; `streamforge worker` and
`python file.py worker` take any path.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_OPTIONS = ("-A", "--app")


def answer_to_file_name(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Register the module that is being imported under its file's name, if that is how the command line calls it."""
    for named in _apps_named(arguments, environment):
        file = named.partition(":")[0]
        module = sys.modules.get(Path(file).stem)
        origin = getattr(module, "__file__", None)
        if module is not None and file.endswith(".py") and origin is not None and os.path.realpath(origin) == os.path.realpath(file):
            sys.modules[file] = module


def _apps_named(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Give what stands behind -A and --app, and what the environment says."""
    for at, argument in enumerate(arguments):
        if argument in _OPTIONS:
            yield from arguments[at + 1 : at + 2]
        elif argument.startswith("--app="):
            yield argument.removeprefix("--app=")
        elif argument.startswith("-A"):
            yield argument.removeprefix("-A").removeprefix("=")
    yield from filter(None, (environment.get("FAUST_APP"), environment.get("F_APP")))
