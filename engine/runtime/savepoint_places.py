"""Where savepoints are kept: a folder or URL that holds them, and in it a folder for each, by its name."""

import re
from pathlib import Path

from engine.errors import ConfigError
from state.remote import Folder, LocalFolder, open_folder
from state.savepoint import METADATA

_FILE = re.compile(r"\d+(-[0-9a-f]+)?\.entries")


def open_savepoint(url: str, name: str) -> Folder:
    """Return the folder of a savepoint, which need not exist; one of this machine by its absolute path.

    Raises:
        ConfigError: The name names no folder in that place.
    """
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise ConfigError(f"savepoint name {name!r} cannot be used: it names a folder")
    place = open_folder(url)
    if isinstance(place, LocalFolder):
        place = LocalFolder(place.path.absolute())
    return place.child(name)


def delete_savepoint(folder: Folder) -> None:
    """Delete a savepoint, or what is left of one that was not completed.

    Raises:
        ConfigError: There is none, or something else stands in the folder: nothing is deleted.
    """
    names = _everything(folder)
    if not names:
        raise ConfigError(f"there is no savepoint {folder.url}")
    foreign = [name for name in names if not is_of_savepoint(name)]
    if foreign:
        raise ConfigError(f"{folder.url} is no savepoint, nothing was deleted: it holds {', '.join(map(repr, foreign[:3]))}")
    folder.delete(METADATA)  # first: what remains if this is cut short is no savepoint
    folder.remove()


def is_of_savepoint(name: str) -> bool:
    """Return whether a file is one of a savepoint, or one of them that was not written to its end."""
    if name.startswith(".") and name.endswith(".part"):
        name = name.removeprefix(".").removesuffix(".part")
    return name == METADATA or _FILE.fullmatch(name) is not None


def _everything(folder: Folder) -> list[str]:
    """Return what a folder holds: on this machine unfinished files and sub-folders too."""
    if not isinstance(folder, LocalFolder):
        return folder.names()
    if folder.path.is_symlink():
        return [f"a link to {folder.path.readlink()}"]
    return sorted(_shown(path) for path in folder.path.iterdir()) if folder.path.is_dir() else []


def _shown(path: Path) -> str:
    return path.name if path.is_file() and not path.is_symlink() else f"{path.name}/"


__all__ = ["delete_savepoint", "is_of_savepoint", "open_savepoint"]
