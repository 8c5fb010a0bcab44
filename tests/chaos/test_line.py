"""The line of the chaos rounds carries, holds back and delivers."""

import asyncio

from tests.chaos.line import Line
from tests.ports import free_port


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def test_line_that_was_cut_delivers_what_was_sent_meanwhile() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    line = Line(free_port())
    await line.start(server.sockets[0].getsockname()[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    writer.write(b"one\n")
    assert await reader.readline() == b"ONE\n"

    line.cut()
    writer.write(b"two\n")
    answer = asyncio.create_task(reader.readline())
    late_reader, late_writer = await asyncio.open_connection("127.0.0.1", line.port)
    late_writer.write(b"three\n")
    done, _ = await asyncio.wait([answer], timeout=0.2)
    assert not done, "nothing comes through a line that is cut"

    line.mend()
    assert await answer == b"TWO\n"
    assert await late_reader.readline() == b"THREE\n"
    writer.close()
    assert await reader.read() == b"", "the end of a connection comes through too"
    late_writer.close()
    await line.stop()
    server.close()
