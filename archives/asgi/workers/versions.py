"""A version that is served: its queue, its batches, and its workers, which are kept alive."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from archives.asgi import spans
from archives.asgi.metrics import Metrics
from archives.asgi.refused import Refused, unavailable
from archives.asgi.workers.jobs import Job, Plan, Slot
from archives.asgi.workers.worker_process import Answer, Asked, Worker, WorkerFailed
from sonode.traces import Traces

RETRY_MAX_S = 60.0  # between attempts to start a worker
DRAIN_S = 120.0  # how long the waiting requests of a version that is taken off may take

logger = logging.getLogger("sonode.server")


class Version:
    """One version of one model, from an archive unpacked in `folder`."""

    def __init__(
        self,
        model: str,
        version: str,
        file: str,
        folder: Path,
        plan: Plan,
        metrics: Metrics,
        config: Path,
        traces: Traces | None,
    ) -> None:
        self.model, self.version, self.file = model, version, file
        self.folder, self.plan = folder, plan
        self._metrics, self._config, self._traces = metrics, config, traces
        self._waiting: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._open = 0  # jobs without an answer
        loop = asyncio.get_running_loop()
        self.slots = [
            Slot(
                f"W-{9000 + number}-{model}_{version}",
                number % plan.gpus if plan.gpus else None,
                loop.create_future(),
            )
            for number in range(plan.workers)
        ]

    async def start(self, *, all_workers: bool) -> None:
        """Start the workers and wait for the first one, or for all.

        Raises WorkerFailed, with the worker's name and reason, where one does not start.
        """
        for slot in self.slots:
            slot.task = asyncio.create_task(self._keep(slot))
        firsts = [slot.first for slot in self.slots]
        until = asyncio.ALL_COMPLETED if all_workers else asyncio.FIRST_COMPLETED
        done, _ = await asyncio.wait(firsts, return_when=until)
        for first in done:
            first.result()

    @property
    def ready(self) -> bool:
        """Whether a worker is there."""
        return any(slot.worker for slot in self.slots)

    @property
    def heads(self) -> list[str]:
        """The names of its heads."""
        workers = [slot.worker for slot in self.slots if slot.worker]
        return list(workers[0].heads) if workers else []

    async def score(self, asked: Asked, label: str) -> Answer:
        """The handler's answer to one request. Raises Refused where there is none."""
        name = f"{self.model} {self.version}"
        self._metrics.add("ts_inference_requests_total", 1, self.model, label)
        if len(self._waiting) >= self.plan.queue_size:
            raise unavailable(f"the queue of {name} is full: send it again later")
        if all(slot.broken for slot in self.slots):
            raise unavailable(f"{name} has no worker: see logs/model_log.log")
        job = Job(asked, label, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        self._open += 1
        try:
            return await job.answer
        finally:
            self._open -= 1
            self._arrived.set()  # a batch that waits may be all that is left

    async def stop(self) -> None:
        """Answer what is waiting, then end the workers. Nobody may call `score` any more."""
        until = time.monotonic() + DRAIN_S
        while self._open and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for slot in self.slots:
            if slot.task:
                slot.task.cancel()
            if not slot.first.done():
                slot.first.set_exception(WorkerFailed(f"{slot.name} was unregistered"))
                slot.first.exception()
        tasks = [slot.task for slot in self.slots if slot.task]
        await asyncio.gather(*tasks, return_exceptions=True)
        self._refuse_waiting()

    async def _keep(self, slot: Slot) -> None:
        """Start a worker, feed it until it ends, and start the next one."""
        pause_s = 1.0
        facts = {"gpu_id": slot.gpu, "metrics": self._metrics.of_models}
        while True:
            began = time.monotonic()
            try:
                worker, updates = await Worker.start(
                    slot.name, self.folder, self._config, facts, self.plan.startup_timeout_s
                )
            except (WorkerFailed, OSError) as error:  # the latter: no memory for a process, say
                reason = f"worker {slot.name} ended while it loaded its model ({error})"
                logger.error("%s", reason)
                slot.broken = True
                if not slot.first.done():
                    slot.first.set_exception(WorkerFailed(reason))
                    slot.first.exception()  # looked at: whoever waits for another slot does not
                if all(it.broken for it in self.slots):
                    self._refuse_waiting()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                continue
            slot.worker, slot.broken, pause_s = worker, False, 1.0
            self._metrics.update(updates)
            self._metrics.add(
                "WorkerLoadTime", 1000 * (time.monotonic() - began), slot.name, "Host"
            )
            worker.ended.add_done_callback(lambda _: self._arrived.set())
            if not slot.first.done():
                slot.first.set_result(None)
            try:
                await self._feed(worker)
            finally:
                slot.worker = None
                await worker.end()
            logger.error("worker %s has ended: a new one starts", slot.name)

    async def _feed(self, worker: Worker) -> None:
        """Give it batches until it ends."""
        while not worker.ended.done():
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batch = await self._collect()
            if worker.ended.done():  # before it got them
                self._waiting.extendleft(reversed(batch))
                self._arrived.set()
                return
            began = time.monotonic()
            try:
                answers, updates, stages = await worker.ask(
                    [job.asked for job in batch], self.plan.response_timeout_s
                )
            except asyncio.CancelledError:
                self._fail(batch, unavailable(f"{self.model} {self.version} is taken off"))
                raise
            except WorkerFailed as error:
                logger.error("worker %s: %s", worker.name, error)
                self._fail(batch, Refused(507, "InternalServerException", "Worker died."))
                self._trace(batch, began, {}, [507] * len(batch))
                return
            self._metrics.update(updates)
            self._count(batch, began)
            if isinstance(answers, int):
                self._fail(batch, Refused(answers, "InternalServerException", "Prediction failed"))
                self._trace(batch, began, {}, [answers] * len(batch))
                continue
            for job, answer in zip(batch, answers, strict=True):
                if not job.answer.done():  # its client may have gone
                    job.answer.set_result(answer)
            self._trace(batch, began, stages, [it.status for it in answers])

    async def _collect(self) -> list[Job]:
        """The next batch: what comes within the delay after the first, up to the batch's size.

        It waits for others only while there are others: a lone request goes at once.
        """
        batch = [self._waiting.popleft()]
        until = time.monotonic() + self.plan.max_batch_delay_s
        try:
            async with asyncio.timeout(self.plan.max_batch_delay_s):
                while len(batch) < self.plan.batch_size:
                    if self._waiting:
                        batch.append(self._waiting.popleft())
                        continue
                    if self._open <= len(batch) or time.monotonic() >= until:
                        break
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            self._waiting.extendleft(reversed(batch))
            raise
        return batch

    def _count(self, batch: list[Job], began: float) -> None:
        now = time.monotonic()
        for job in batch:
            labels = self.model, job.label
            queued_us, spent_us = 1e6 * (began - job.began), 1e6 * (now - began)
            self._metrics.add("ts_queue_latency_microseconds", queued_us, *labels)
            self._metrics.add("ts_inference_latency_microseconds", spent_us, *labels)

    def _trace(
        self,
        batch: list[Job],
        taken: float,
        stages: Mapping[str, tuple[float, float]],
        statuses: list[int],
    ) -> None:
        if self._traces is None:
            return
        batch_answered = [
            spans.Answered(job.asked.headers.get("traceparent", ""), job.began, status)
            for job, status in zip(batch, statuses, strict=True)
        ]
        facts = {"sonode.model": self.model, "sonode.version": self.version}
        # Once the answers are on their way.
        times = taken, time.monotonic()
        asyncio.get_running_loop().call_soon(
            partial(spans.trace, self._traces, batch_answered, *times, stages, facts)
        )

    def _fail(self, batch: list[Job], error: Refused) -> None:
        for job in batch:
            if not job.answer.done():
                job.answer.set_exception(error)

    def _refuse_waiting(self) -> None:
        self._fail(list(self._waiting), unavailable(f"{self.model} {self.version} has no worker"))
        self._waiting.clear()

    def described(self) -> dict[str, Any]:
        """As TorchServe describes it, as far as it is used."""
        return {
            "modelName": self.model,
            "modelVersion": self.version,
            "modelUrl": self.file,
            "minWorkers": self.plan.workers,
            "maxWorkers": self.plan.workers,
            "batchSize": self.plan.batch_size,
            "maxBatchDelay": round(1000 * self.plan.max_batch_delay_s),
            "workers": [
                {
                    "id": slot.name,
                    "status": "READY" if slot.worker else "UNLOADED",
                    "pid": slot.worker.pid if slot.worker else -1,
                }
                for slot in self.slots
            ],
        }
