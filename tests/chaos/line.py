"""A line between a worker and the broker that can be cut: what was sent meanwhile arrives when it holds again, as on a real network.

    worker ──► 127.0.0.1:port (advertised by the broker to this worker alone) ──► the broker's listener for it

Both sides believe in their connections while the line is cut; the worker goes on processing, and what it has sent (a commit, say)
reaches the broker long after others have taken its place.
"""

import asyncio
import contextlib

_PIECE_BYTES = 1 << 16


class Line:
    """Carries bytes to a port of this machine until `cut`, and again after `mend`.

    Attributes:
        port: Where the worker connects.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._carriers: set[asyncio.Task[None]] = set()
        self._to_port = 0

    async def start(self, to_port: int) -> None:
        """Listen."""
        self._to_port = to_port
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for carrier in self._carriers:
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    def cut(self) -> None:
        """Let nothing through any more; connections stay open, and new ones are not answered."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again, what was held up first."""
        self._whole.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.close()
            return
        for source, target in ((reader, back_writer), (back_reader, writer)):
            carrier = asyncio.create_task(self._carry(source, target))
            self._carriers.add(carrier)
            carrier.add_done_callback(self._carriers.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while piece := await reader.read(_PIECE_BYTES):
                    await self._whole.wait()
                    writer.write(piece)
                    await writer.drain()
                await self._whole.wait()
        finally:
            writer.close()
