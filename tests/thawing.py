"""Connections that break while a function environment is frozen, and fail at their next use."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

Death = Literal["reset", "closed", "silent"]
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Middlebox:
    """A TCP proxy on the loopback that forgets connections, as a NAT gateway or a load balancer does.

    Parameters
    ----------
    target
        The URL of the server behind the proxy.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._death: Death = "reset"
        self._remembered: set[asyncio.StreamReader] = set()
        self.connections = 0
        self.deaths = 0

    def forget(self, death: Death) -> None:
        """Forget all connections: the next data on one gets a reset, the end of the connection, or no answer."""
        self._death = death
        self._remembered.clear()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Run the proxy, and yield the URL of the server as reached through it."""
        listener = socket.create_server(("127.0.0.1", 0))
        loop, stop = asyncio.new_event_loop(), asyncio.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._connect, sock=listener)
            await stop.wait()
            server.close()

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())

        thread = threading.Thread(target=run, name="middlebox")
        thread.start()
        try:
            yield self._target._replace(netloc=f"127.0.0.1:{listener.getsockname()[1]}").geturl()
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    async def _connect(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._remembered.add(client)
        server, to_server = await asyncio.open_connection(self._target.hostname, self._target.port)
        answers = asyncio.create_task(_pass_on(server, to_client))
        with contextlib.suppress(ConnectionError):
            while (data := await client.read(65_536)) and client in self._remembered:
                to_server.write(data)
            if data:
                self.deaths += 1
                await self._die(client, to_client)
        answers.cancel()
        to_client.transport.abort()
        to_server.transport.abort()

    async def _die(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._death == "silent":
            await client.read()
        if self._death == "reset":
            to_client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()
