#!/usr/bin/env python3
"""A provider that answers each question after a while that the job failed.

usage: slow_provider.py PORT DELAY_MS

`GET /figures` gives, and forgets: questions answered, seconds from the first question to the last
answer, and the most questions at once.
"""

import asyncio
import sys
import time


class Figures:
    def __init__(self):
        self.answered = self.now = self.most = 0
        self.first = self.last = None

    def __str__(self):
        return f"{self.answered} {(self.last or 0) - (self.first or 0):.3f} {self.most}"


figures = Figures()


async def answer(path, delay):
    global figures
    if path == "/figures":
        text, figures = str(figures), Figures()
        return text
    figures.first = figures.first or time.monotonic()
    figures.now += 1
    figures.most = max(figures.most, figures.now)
    await asyncio.sleep(delay)
    figures.now -= 1
    figures.answered += 1
    figures.last = time.monotonic()
    job = path.rsplit("/", 1)[1]
    return f'{{"id":"{job}","status":"failed","output":null,"error":"generation failed on the provider side"}}'


async def serve(reader, writer, delay):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = (await answer(head.split()[1].decode(), delay)).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port, delay_ms):
    serving = lambda reader, writer: serve(reader, writer, delay_ms / 1000)
    async with await asyncio.start_server(serving, "127.0.0.1", port, backlog=1024) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
