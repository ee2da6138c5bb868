"""Workers that die, hang or do not come back, their queues, and one version after another."""

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from archives.asgi.node import AsgiNode
from archives.nodes.nodes import Node
from archives.packing.members import file_sha256
from archives.serving.serve_with_gateway import settings_of
from archives.state.journal import Release
from tests.archives.asgi.odd import CONFIG, ODD, manage, pid, post, raw
from tests.archives.serving.test_serve import bearer, wait_for, write_archive
from tests.loopback import LOOPBACK

pytestmark = pytest.mark.live


@pytest.mark.parametrize("word", [b"die", b"hang"])
def test_a_worker_that_dies_or_hangs_is_replaced(node: AsgiNode, word: bytes) -> None:
    old = pid(node)
    answer = post(node, word)
    assert (answer.status_code, answer.json()["message"]) == (507, "Worker died.")
    assert post(node).json() == {"version": "1.0", "batch": 1}  # waits for the next worker
    assert pid(node) != old
    with pytest.raises(ProcessLookupError):
        os.kill(old, 0)


def test_an_idle_worker_that_is_killed_costs_no_request(node: AsgiNode) -> None:
    old = psutil.Process(pid(node))
    old.kill()
    with suppress(psutil.NoSuchProcess):
        # Until its last thread has ended, what it has open takes requests.
        while old.status() != psutil.STATUS_ZOMBIE or old.num_threads() > 1:
            time.sleep(0.001)
    with ThreadPoolExecutor(4) as pool:
        assert {it.status_code for it in pool.map(lambda _: post(node), range(4))} == {200}


def test_a_handler_that_raises_keeps_its_worker(node: AsgiNode) -> None:
    old = pid(node)
    answer = post(node, b"raise")
    assert (answer.status_code, answer.json()["message"]) == (503, "Prediction failed")
    assert post(node).status_code == 200
    assert pid(node) == old


def test_a_full_queue_refuses_at_once_and_answers_the_rest(node: AsgiNode) -> None:
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: post(node, b"slow"), range(24)))
    told = Counter(it.status_code for it in answers)
    assert set(told) == {200, 503}
    assert told[200] >= 8  # those that wait, at least
    refused = next(it for it in answers if it.status_code == 503)
    assert refused.json()["type"] == "ServiceUnavailableException"
    assert "queue" in refused.json()["message"]
    assert max(it.json()["batch"] for it in answers if it.status_code == 200) == 4
    assert post(node).status_code == 200


def test_a_request_waits_only_for_others_that_there_are(tmp_path: Path) -> None:
    config = CONFIG.replace("responseTimeout: 3", "maxBatchDelay: 1000000")
    write_archive(tmp_path / "odd.mar", "odd", ODD, "1.0", config)
    with AsgiNode(tmp_path, {"odd": "odd.mar"}, tmp_path / "run") as started:
        assert post(started).json()["batch"] == 1
        with ThreadPoolExecutor(6) as pool:  # `post` waits 60 s
            answers = list(pool.map(lambda _: post(started, b"slow"), range(6)))
        assert {it.status_code for it in answers} == {200}


def test_a_version_is_replaced_under_load_without_a_failed_request(
    node: AsgiNode, store: Path
) -> None:
    asked = Node(settings_of(node), store)
    told: Counter[str] = Counter()
    ended = threading.Event()

    def client() -> None:
        with httpx.Client(trust_env=False, timeout=60, headers=bearer(node.token())) as http:
            while not ended.is_set():
                answer = http.post(f"{node.inference_url}/predictions/odd", content=b"x")
                ok = answer.status_code == 200
                told[answer.json()["version"] if ok else answer.text] += 1

    def to(old: str, new: str) -> None:
        file = f"odd-{new}.mar"
        asked.register("odd", Release(new, file, file_sha256(store / file)))
        asked.set_default("odd", new)
        asked.unregister("odd", old)
        assert (asked.versions("odd"), asked.default_version("odd")) == ({new: 1}, new)
        until = told[new] + 20
        wait_for(lambda: told[new] >= until)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(client)
        wait_for(lambda: told["1.0"] >= 20)
        to("1.0", "2.0")
        to("2.0", "1.0")
        ended.set()
    assert set(told) == {"1.0", "2.0"}


def test_a_body_that_is_still_coming_goes_to_the_version_that_replaces(node: AsgiNode) -> None:
    token = f"Authorization: Bearer {node.token()}\r\n"
    for old, new in (("1.0", "2.0"), ("2.0", "1.0")):
        head = f"POST /predictions/odd HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 4\r\n\r\n"
        named = head.replace("/odd", f"/odd/{old}")
        with raw(node, head.encode() + b"ab") as one, raw(node, named.encode() + b"ab") as other:
            assert post(node).json()["version"] == old
            for method, path, params in (
                ("POST", "/models", {"url": f"odd-{new}.mar"}),
                ("PUT", f"/models/odd/{new}/set-default", {}),
                ("DELETE", f"/models/odd/{old}", {}),
            ):
                manage(node, method, path, **params).raise_for_status()
            one.sendall(b"cd")
            other.sendall(b"cd")
            answer = b""
            while b"}" not in answer and (part := one.recv(4096)):  # its body comes after its head
                answer += part
            assert (answer[9:12], f'"{new}"'.encode() in answer) == (b"200", True)
            assert other.recv(4096)[9:12] == b"404"


def test_what_waits_is_answered_before_its_version_is_taken_off(
    node: AsgiNode, store: Path
) -> None:
    manage(node, "POST", "/models", url="odd-2.0.mar").raise_for_status()
    begun = next((node.run_dir / "tmp").glob("archive-*")).parent / "begun"
    begun.unlink(missing_ok=True)
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(post, node, b"slow", "odd/2.0") for _ in range(6)]
        wait_for(begun.exists)
        wait_for(lambda: manage(node, "DELETE", "/models/odd/2.0").status_code == 200)
        assert {it.result().status_code for it in waiting} <= {200, 404}  # 404: it came too late
        assert sum(it.result().status_code == 200 for it in waiting) >= 1
    assert manage(node, "DELETE", "/models/odd/2.0").status_code == 404


def test_a_version_whose_workers_do_not_come_back_refuses_at_once(
    node: AsgiNode, store: Path
) -> None:
    broken = node.run_dir / "tmp" / "broken"
    broken.touch()
    try:
        post(node, b"die")
        assert post(node).status_code == 503  # waits for the attempt
        assert post(node).status_code == 503
        ping = LOOPBACK.get(f"{node.inference_url}/ping", headers=bearer(node.token()))
        assert (ping.status_code, ping.json()) == (500, {"status": "Unhealthy"})
    finally:
        broken.unlink()
    wait_for(lambda: post(node).status_code == 200)
