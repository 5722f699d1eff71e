"""The network between the nodes of a cluster: a proxy in front of each node's peer port, which can hold back what one
node says to another, in one direction or both. It needs no root, and what it holds back it delivers late, as TCP does."""

import asyncio
import threading

# Of a connection's hello, which its dialer says first (host/transport/docs/frames.md): up to the dialer's node id, and that.
HELLO_BYTES = 48
DIALER = slice(40, 48)
CHUNK = 1 << 16


class Network:
    """Doors of nodes, by their ids. Everything is open at first."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.behind = {}  # node → (host, port) of its process
        self.held = {}    # (from, to) → an event that is set when the way is open again
        self.bytes_per_s = None
        self.free_at = {}  # (from, to) → when what was said before has gone through
        self.doors = []
        self.thread = threading.Thread(target=self.loop.run_forever, name="network", daemon=True)
        self.thread.start()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def door(self, node, source=None) -> str:
        """Opens a door to a node that need not run yet; returns its address. Without `source`, who dials says who it is, as
        nodes do."""
        async def open_door():
            return await asyncio.start_server(lambda *streams: self._carry(source, node, *streams), "127.0.0.1", 0)

        server = self._run(open_door())
        self.doors.append(server)
        host, port = server.sockets[0].getsockname()
        return f"{host}:{port}"

    def leads_to(self, node, address: str):
        """The node's process listens there."""
        host, port = address.rsplit(":", 1)
        self.behind[node] = (host, int(port))

    def cut(self, source, target):
        """Nothing that `source` says reaches `target` until the way is healed."""
        async def hold():
            self.held.setdefault((source, target), asyncio.Event())

        self._run(hold())

    def cut_both(self, one: int, other: int):
        self.cut(one, other)
        self.cut(other, one)

    def isolate(self, node: int, others):
        """Neither hears the other."""
        for other in others:
            if other != node:
                self.cut_both(node, other)

    def slow(self, bytes_per_s: int | None):
        """Each way lets through so much from now on, whatever the number of its connections; `None`: as much as there is."""
        async def pace():
            self.bytes_per_s = bytes_per_s

        self._run(pace())

    def heal(self, lose=False):
        """All ways are open; what was held back goes on, or is lost with its connection."""
        async def release():
            held, self.held = self.held, {}
            for event in held.values():
                event.lost = lose
                event.set()

        self._run(release())

    def close(self):
        async def end():
            for door in self.doors:
                door.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _open(self, source, target) -> bool:
        """Waits until the way is open. Returns whether what waited may go on."""
        while event := self.held.get((source, target)):
            await event.wait()
            if event.lost:
                return False
        return True

    async def _take_time(self, source, target, count):
        if self.bytes_per_s:
            now = self.loop.time()
            gone_at = max(now, self.free_at.get((source, target), now)) + count / self.bytes_per_s
            self.free_at[source, target] = gone_at
            await asyncio.sleep(gone_at - now)

    async def _carry(self, source, target, reader, writer):
        """One connection, from the hello to the end of both directions."""
        try:
            hello = b""
            if source is None:
                hello = await reader.readexactly(HELLO_BYTES)
                source = int.from_bytes(hello[DIALER], "little")
            await self._open(source, target)
            behind = await asyncio.open_connection(*self.behind[target])
        except (OSError, asyncio.IncompleteReadError, KeyError, asyncio.CancelledError):
            writer.close()
            return
        await asyncio.gather(
            self._pump(source, target, reader, behind[1], hello),
            self._pump(target, source, behind[0], writer),
        )

    async def _pump(self, source, target, reader, writer, data=b""):
        """From one node to the other; that the connection ended is news that is held back like any other."""
        try:
            while data or (data := await reader.read(CHUNK)):
                if not await self._open(source, target):
                    break
                await self._take_time(source, target, len(data))
                writer.write(data)
                await writer.drain()
                data = b""
        except OSError:
            pass
        except asyncio.CancelledError:
            writer.close()
            return
        try:
            await self._open(source, target)
        except asyncio.CancelledError:
            pass
        writer.close()
