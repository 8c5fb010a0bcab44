"""PIPELINES: how a command line names an app: `shop`, `shop:app`, `hello.py` or `hello.py:app`.

The working directory (or the file's) comes first on the import path, so that `hello` finds ./hello.py. Without a name behind the
colon the app is the one called `app`, or the only one in the module.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from engine.errors import ConfigError, StreamForgeError

A = TypeVar("A")

_FORMS = "PIPELINES is a module, module:app or file.py"


def load_app(pipelines: str, kind: type[A]) -> A:
    """Import and return the app that a command line names.

    Args:
        kind: The class that an app must have.
    Raises:
        ConfigError: There is no such module or app, or importing it failed; in one sentence.
    """
    place, _, name = pipelines.partition(":")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    apps = {key: value for key, value in vars(module).items() if isinstance(value, kind)}
    if name:
        if name not in apps:
            found = f"is a {type(vars(module)[name]).__name__}" if name in vars(module) else "is not there"
            raise ConfigError(f"{pipelines!r}: {name!r} {found}; an App is needed")
        return apps[name]
    if "app" in apps:
        return apps["app"]
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if apps:
        raise ConfigError(f"{pipelines!r} has several apps; say which, such as {place}:{min(apps)}")
    raise ConfigError(f"{pipelines!r} has no App; make one with app = App('name', broker=...)")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}; {_FORMS}")
    path = path.resolve()
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    _prefer(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if loaded is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = loaded
        if isinstance(error, Exception):
            raise _not_loaded(path.name, error) from error
        raise
    return module


def _load_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r} is no name of a module; {_FORMS}")
    _prefer(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(f"there is no module {name!r}; {_FORMS}") from error
        raise _not_loaded(name, error) from error
    except Exception as error:
        raise _not_loaded(name, error) from error


def _prefer(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _not_loaded(what: str, error: Exception) -> ConfigError:
    """Return what user code raised while it was imported as one sentence with its place."""
    if isinstance(error, StreamForgeError):
        return ConfigError(f"{what}: {error}")
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    known = last is None or isinstance(error, SyntaxError)
    place = "" if known or last is None else f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})"
    return ConfigError(f"{what} could not be loaded: {type(error).__name__}: {error}{place}")
