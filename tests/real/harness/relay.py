"""A TCP relay that stands between Forebay and a real server and records what passes, with the time of each piece."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Connection:
    """One connection of the proxy to the server."""

    #: Bytes of the proxy.
    sent: bytearray = field(default_factory=bytearray)
    #: Bytes of the server.
    received: bytearray = field(default_factory=bytearray)
    #: When the relay read each piece of the server, before handing it on: `time.monotonic()` and the length of `received` then.
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    #: Who closed first: `proxy` or `server`; None while it is open.
    ended_by: str | None = None
    #: When it ended, `time.monotonic()`.
    ended_at: float | None = None


class Relay:
    """Listens on a port of its own and hands everything on to `target`, a port of 127.0.0.1.

    `gate`, when set, is called with the connection before each piece of the server is handed on, in a thread that may block.
    """

    def __init__(self, target: int):
        self.target = target
        self.connections: list[Connection] = []
        self.gate: Callable[[Connection], None] | None = None
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._relay, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._server.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _relay(self, from_proxy: asyncio.StreamReader, to_proxy: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            to_proxy.transport.abort()
            return
        connection = Connection()
        self.connections.append(connection)
        pumps = [
            asyncio.ensure_future(self._upstream(connection, from_proxy, to_server)),
            asyncio.ensure_future(self._downstream(connection, from_server, to_proxy)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            to_proxy.close()
            to_server.close()

    def _ended(self, connection: Connection, by: str) -> None:
        if connection.ended_by is None:
            connection.ended_at = time.monotonic()
            connection.ended_by = by

    async def _upstream(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                connection.sent += piece
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        self._ended(connection, "proxy")

    async def _downstream(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                connection.received += piece
                connection.arrivals.append((time.monotonic(), len(connection.received)))
                if gate := self.gate:
                    await self._loop.run_in_executor(None, gate, connection)
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        self._ended(connection, "server")
