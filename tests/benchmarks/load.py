"""A load generator that costs little: blocking sockets, one thread and connection per client."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What a load met with."""

    requests: int
    per_second: float
    p50_ms: float
    p95_ms: float
    client_cpu_ms: float
    """CPU time of the client itself per request: it runs on the same cores."""


def drive(
    url: str,
    bodies: Sequence[bytes],
    *,
    concurrency: int,
    seconds: float,
    headers: dict[str, str] | None = None,
) -> Load:
    """Post `bodies` in turn from `concurrency` clients, each waiting for its answer.

    Raises:
        RuntimeError: any answer but 200, or none.
    """
    target = urlsplit(url)
    fields = "".join(f"{key}: {value}\r\n" for key, value in (headers or {}).items())
    prepared = [
        (
            f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\n{fields}"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for body in bodies
    ]
    done: list[tuple[float, float]] = []  # (end, seconds)
    cpu: list[float] = []
    failures: list[str] = []
    begin = time.perf_counter()
    end = begin + seconds

    def client(number: int) -> None:
        try:
            ask(number)
        except (OSError, RuntimeError) as error:
            failures.append(f"{url}: {error}")
        cpu.append(time.thread_time())

    def ask(number: int) -> None:
        with socket.create_connection((target.hostname, target.port), timeout=120) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            turn = number
            while (started := time.perf_counter()) < end and not failures:
                connection.sendall(prepared[turn % len(prepared)])
                status = _read_answer(connection)
                if status != 200:
                    raise RuntimeError(f"it answered {status}")
                finished = time.perf_counter()
                done.append((finished, finished - started))
                turn += concurrency

    threads = [threading.Thread(target=client, args=[number]) for number in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    milliseconds = sorted(1000 * duration for _, duration in done)
    return Load(
        requests=len(done),
        per_second=len(done) / (max(finished for finished, _ in done) - begin),
        p50_ms=statistics.median(milliseconds),
        p95_ms=milliseconds[int(0.95 * (len(milliseconds) - 1))],
        client_cpu_ms=1000 * sum(cpu) / len(done),
    )


def _read_answer(connection: socket.socket) -> int:
    """Read one whole answer; its status."""
    data = b""
    while b"\r\n\r\n" not in data:
        packet = connection.recv(65536)
        if not packet:
            raise RuntimeError("the server closed the connection")
        data += packet
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
    while len(rest) < length:
        rest += connection.recv(65536)
    return int(lines[0].split()[1])
