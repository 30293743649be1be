"""The service under load: how many requests it answers, how quickly, and what memory it takes.

    python benchmarks/serving.py runs/cars                          1,000 requests, 20 at a time
    python benchmarks/serving.py runs/cars --requests 10000 --at-a-time 10000

Photos are drawn, as JPEGs of PHOTO_PX pixels; one request in ten sends what is no photo. Each has a
connection of its own; one that gets no answer at all counts as lost. With --again what is answered
with 503 is sent again, after one second, two, four and up to 30, until it is answered otherwise.
"""

import argparse
import asyncio
import io
import random
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import psutil
from machine import describe
from PIL import Image


def main() -> None:
    """Start a service, ask it, and print what came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--requests", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--at-a-time", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--again", action="store_true", help="send again what met a 503")
    parser.add_argument("--photo-px", type=int, default=640, help="default: %(default)s")
    arguments = parser.parse_args()
    print(describe("torch", "starlette", "uvicorn"))
    command = [sys.executable, "-m", "cardamage", "serve", arguments.run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            address = re.search(r"http://\S+", service.stdout.readline())[0]
            process = psutil.Process(service.pid)
            photo = drawn(arguments.photo_px)
            asyncio.run(ask(address, [photo] * 20, 2, again=False))  # warm
            before = process.memory_info().rss
            asked = [b"no photo" if i % 10 == 9 else photo for i in range(arguments.requests)]
            started = time.perf_counter()
            statuses, times, most = asyncio.run(watched(process, address, asked, arguments))
            seconds = time.perf_counter() - started
        finally:
            service.terminate()
    median, late = np.percentile(times, [50, 99])
    print(f"{len(asked)} requests, {arguments.at_a_time} at a time: {dict(Counter(statuses))}")
    print(f"{len(asked) / seconds:.1f}/s; median {median:.2f} s, 99 % within {late:.2f} s")
    print(f"memory {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB at most")


async def watched(
    process: psutil.Process, address: str, asked: list[bytes], arguments: argparse.Namespace
) -> tuple[list[str], list[float], int]:
    """Statuses and seconds of all requests, and the most memory seen meanwhile, in bytes."""
    most = 0

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.1)

    watching = asyncio.ensure_future(look())
    try:
        return *await ask(address, asked, arguments.at_a_time, again=arguments.again), most
    finally:
        watching.cancel()


async def ask(
    address: str, asked: list[bytes], at_a_time: int, *, again: bool
) -> tuple[list[str], list[float]]:
    """Send every body, so many at a time: all statuses, those of repeated requests too."""
    statuses, times, turn = [], [], asyncio.Semaphore(at_a_time)
    host, port = address.removeprefix("http://").split(":")

    async def one(body: bytes) -> None:
        async with turn:
            started, pause_s = time.perf_counter(), 1.0
            while True:
                status = await post(host, int(port), body)
                statuses.append(status)
                if status != "503" or not again:
                    break
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                pause_s = min(2 * pause_s, 30.0)
            times.append(time.perf_counter() - started)

    await asyncio.gather(*map(one, asked))
    return statuses, times


async def post(host: str, port: int, body: bytes) -> str:
    """The status of one request, or how its connection broke."""
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    try:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            answer = await reader.read()
        finally:
            writer.close()
    except OSError as error:
        return f"lost: {type(error).__name__}"
    return answer[9:12].decode() or "lost: no answer"


def drawn(side_px: int) -> bytes:
    """A JPEG of blurred noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC).save(
        stream, "JPEG"
    )
    return stream.getvalue()


if __name__ == "__main__":
    main()
