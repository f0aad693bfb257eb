"""A process: answers every POST with 204 and keeps when the `event=<number>` in its body came; GET takes them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import ClassVar

_EVENT = re.compile(rb"event=(\d+);")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Arrivals(asyncio.Protocol):
    came: ClassVar[dict[str, float]] = {}  # of the whole process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._read = b""

    def data_received(self, chunk: bytes) -> None:
        now = time.time()
        self._read += chunk
        while (request := self._whole_request()) is not None:
            self._transport.write(self._answer(request, now))

    def _whole_request(self) -> bytes | None:
        head, ended, body = self._read.partition(b"\r\n\r\n")
        said = _LENGTH.search(head)
        length = int(said[1]) if said else 0
        if not ended or len(body) < length:
            return None
        end = len(head) + 4 + length
        request, self._read = self._read[:end], self._read[end:]
        return request

    def _answer(self, request: bytes, now: float) -> bytes:
        if request.startswith(b"GET"):
            times = json.dumps(self.came).encode()
            self.came.clear()
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(times), times)
        if event := _EVENT.search(request):
            self.came.setdefault(event[1].decode(), now)
        return b"HTTP/1.1 204 No Content\r\n\r\n"


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Arrivals, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
