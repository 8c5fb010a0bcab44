"""uvloop in a worker: an event loop in C, which is a tenth to a fifth of what a worker does besides its records.

Faust's `--loop` chooses too; who gives it, or has set a policy of his own, is left alone. Where there is no uvloop (Windows) the
loop is asyncio's.
"""

import asyncio
import contextlib
from collections.abc import Sequence

_OPTIONS = ("-L", "--loop")


def use_uvloop(arguments: Sequence[str]) -> bool:
    """Let the next event loop of this process be uvloop's; return whether it is. To be called before the loop is made.

    Args:
        arguments: Those of the command line.
    """
    if any(argument.startswith(_OPTIONS) for argument in arguments):
        return False
    if type(asyncio.get_event_loop_policy()) is not asyncio.DefaultEventLoopPolicy:
        return False
    with contextlib.suppress(ImportError):
        import uvloop  # not there on every platform, and not wanted where only a file is run

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        return True
    return False
