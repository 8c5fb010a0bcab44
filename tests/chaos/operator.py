"""What a person does meanwhile: look whether the broker has forgotten ends of transactions, and end those by our own command.

Tasks end what hangs under their own ids when they are opened. What is left is a topic that only readers wait for.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Iterable

_ENDED_BY_TASK = re.compile(r"the broker had lost the end of a transaction, (.*); it is ended")
_TIMEOUT_S = 60.0


class Operator:
    """Has the command line.

    Attributes:
        ended: What the command said of each transaction that it ended.
    """

    def __init__(self, bootstrap: str, say: Callable[[str], None]) -> None:
        self.ended: list[str] = []
        self._broker = f"kafka://{bootstrap}"
        self._say = say

    async def end_what_hangs(self) -> None:
        """Run `streamforge transactions end --all`."""
        command = [sys.executable, "-m", "engine", "transactions", "end", "--all", "--broker", self._broker]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            self._say("transactions end: no answer")
            return
        for line in out.decode(errors="replace").splitlines():
            if " is ended: " in line:
                self.ended.append(line)
            if line != "no transaction hangs":
                self._say(f"transactions end: {line}")

    def notes(self, logs: Iterable[str]) -> list[str]:
        """Return what there is to say of lost ends, with what the workers' logs tell."""
        by_tasks = [found for log in logs for found in _ENDED_BY_TASK.findall(log)]
        said = []
        if by_tasks:
            said.append(f"the broker lost {len(by_tasks)} ends of transactions that tasks have ended: {'; '.join(by_tasks)}")
        if self.ended:
            said.append(f"the broker lost {len(self.ended)} ends of transactions that the command has ended: {'; '.join(self.ended)}")
        return said
