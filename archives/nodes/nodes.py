"""A TorchServe node behind a gateway: what is asked of it.

A node is reached from the gateway's machine: its two APIs by URL, its run folder (the key file) and
its model store as folders. For another machine that is a tunnel and a shared mount: TorchServe
listens on loopback only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, TypeAdapter

from archives.nodes.nodes_file import NodeSettings
from archives.nodes.stores import deliver, is_other, no_space
from archives.state.journal import Release
from archives.torchserve.key_file import Keys, Kind, ask
from archives.torchserve.worker_plan import Plan, plan
from sonode.console import UserError

RENEW_BEFORE = timedelta(minutes=10)
"""Earlier than `sonode serve` does, so that it is the gateway that renews, and knows at once."""
PROBE_TIMEOUT_S = 3.0
_NO_SUCH_PROTOCOL = (404, 405, 501)
"""Answers of a server, or of what stands before it, that does not know /v2."""
_INVALID_KEY = b"InvalidKeyException"
WORKERS_TIMEOUT_S = 120.0  # startupTimeout of an archive's model-config.yaml
REGISTER_TIMEOUT_S = 300.0  # a start imports torch and checks the golden examples; twice, at worst


class _Worker(BaseModel):
    status: str


class _Described(BaseModel):
    """A version as TorchServe describes it, as far as it is used here."""

    version: str = Field(alias="modelVersion")
    url: str = Field(alias="modelUrl")
    workers: list[_Worker]


_DESCRIBED = TypeAdapter(Annotated[list[_Described], Field(min_length=1)])


class NoWorkerError(UserError):
    """A version is registered, and no worker of it starts."""


class OtherBytesError(UserError):
    """A node has loaded an archive that is not the release's."""


class Node:
    """One node's TorchServe, for one model.

    `archives` is the folder on this machine with the archives of all releases, from which a node's
    store is filled. Methods raise httpx.HTTPError where TorchServe does not answer or refuses, and
    OSError, ValueError or KeyError while its key file is not there (yet), and ValueError where it
    answers something else than TorchServe does.
    """

    def __init__(self, settings: NodeSettings, archives: Path) -> None:
        self.settings = settings
        self.name = settings.name
        self.archives = archives
        self._keys = Keys(settings.run_dir / "key_file.json", settings.management)

    def token(self, kind: Kind = "inference") -> str:
        """Return the token for this API, renewed if it has less than ten minutes to live."""
        return self._keys.token(kind, RENEW_BEFORE)

    def healthy(self) -> bool:
        """Whether TorchServe answers; nothing about any version."""
        url = f"{self.settings.inference}/ping"
        # Unhealthy is also what it says while the default version has no worker.
        return self._ask("inference", "GET", url).status_code in (200, 500)

    def predict(
        self, model: str, version: str, image: bytes, headers: dict[str, str], timeout_s: float
    ) -> httpx.Response:
        """Have a version score an image; its answer, whatever the status."""
        url = f"{self.settings.inference}/predictions/{quote(model)}/{quote(version)}"
        return self._ask(
            "inference", "POST", url, content=image, headers=headers, timeout_s=timeout_s
        )

    def speaks_open_inference(self) -> bool | None:
        """Whether its server speaks the Open Inference Protocol, which TorchServe does not.

        None: it says neither. That is no matter of its predictions.
        """
        url = f"{self.settings.inference}/v2/health/live"
        try:
            status = self._ask("inference", "GET", url).status_code
        except httpx.HTTPError:
            return None
        return {200: True, **dict.fromkeys(_NO_SUCH_PROTOCOL, False)}.get(status)

    def versions(self, model: str) -> dict[str, int]:
        """Return the registered versions of a model: version -> workers that are ready."""
        return {
            version.version: sum(it.status == "READY" for it in version.workers)
            for version in self._described(f"{quote(model)}/all")
        }

    def default_version(self, model: str) -> str | None:
        """Return the version that TorchServe serves where none is named; None: no such model."""
        described = self._described(quote(model))
        return described[0].version if described else None

    def register(
        self, model: str, release: Release, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Register an archive and wait until its workers are ready; one that is there stays.

        It is copied into the node's store first, where it is not there yet. For workers of one that
        is there it waits only as long as they are `wanted`.
        Raises UserError for an archive that is not the release's, a store that cannot be written
        to or a disk without space to unpack it, NoWorkerError for one that is there and gets no
        worker, httpx.HTTPStatusError where its workers do not start; it is then not registered.
        """
        deliver(release, self.archives / release.file, self.settings.store, self.name)
        if not wanted():  # to deliver takes long on a slow mount
            return
        # Without the space it would fill the disk with what it can, at each try until a restart.
        archive = self.settings.store / release.file
        if release.version not in self.versions(model) and (
            why := no_space(self.settings.run_dir, archive, release.version)
        ):
            raise UserError(
                f"node {self.name}: {why}: free disk space there (a restart of its TorchServe "
                "removes what it could not unpack)"
            )
        given = self.settings.model_dump(include=set(Plan._fields), exclude_none=True)
        parameters = plan()._replace(**given).registration() | {
            "url": release.file,
            "model_name": model,
            "synchronous": "true",
        }
        answer = self._call("POST", "", params=parameters, timeout_s=REGISTER_TIMEOUT_S)
        if answer.status_code == httpx.codes.CONFLICT:
            if self._gets_workers(model, release.version, wanted) or not wanted():
                return
            raise NoWorkerError(
                f"node {self.name}: version {release.version} is registered and gets no worker: "
                "see the node's logs/model_log.log"
            )
        if answer.is_error:
            # TorchServe keeps a version whose workers did not start, and retries without end.
            self.unregister(model, release.version)
        answer.raise_for_status()

    def set_default(self, model: str, version: str) -> None:
        """Serve this version where a request names none."""
        self._manage("PUT", f"/{quote(model)}/{quote(version)}/set-default")

    def unregister(self, model: str, version: str) -> None:
        """Take a version off the node; what it still has in its queue is never answered."""
        path = f"/{quote(model)}/{quote(version)}"
        self._manage("DELETE", path, missing_is_fine=True, timeout_s=REGISTER_TIMEOUT_S)

    def ensure(
        self,
        model: str,
        stable: Release,
        serves: Sequence[Release],
        wanted: Callable[[], bool] = lambda: True,
        spared: Release | None = None,
        *,
        prove: bool = False,
    ) -> None:
        """Make the node serve exactly these versions, `stable` by default; raises as `register`.

        `spared` may be there or not. `prove`: first raise OtherBytesError where the archive of one
        that is there is not the release's. It takes minutes where workers do not start; once this
        is not `wanted` any more it stops.
        """
        if prove:
            self._prove(model, serves)
        there = self.versions(model)
        for release in serves:
            version = release.version
            if version in there and not self._gets_workers(model, version, wanted):
                if not wanted():
                    return
                self.take_off(model, version, there, instead=stable.version)
                del there[version]
            if release.version not in there:
                self.register(model, release, wanted)
            if not wanted():
                return
        if self.default_version(model) != stable.version:
            self.set_default(model, stable.version)
        if not wanted():
            return
        kept = {release.version for release in (*serves, spared) if release}
        for version in there.keys() - kept:
            self.unregister(model, version)

    def take_off(
        self, model: str, version: str, there: Collection[str], instead: str | None
    ) -> None:
        """Unregister also the default version: TorchServe keeps that one while there are others.

        The default is then `instead`, or any other one where that is not `there`.
        """
        if self.default_version(model) == version:
            others = sorted(set(there) - {version}, key=lambda other: other != instead)
            if others:
                self.set_default(model, others[0])
        self.unregister(model, version)

    def _prove(self, model: str, releases: Sequence[Release]) -> None:
        """Raise OtherBytesError where the file of one of these that is loaded is not the release's.

        A worker does not say what it has loaded in any answer but a scored image. The file says it
        for a node that has just started, which is when one that was replaced begins to serve.
        """
        files = {it.version: Path(it.url).name for it in self._described(f"{quote(model)}/all")}
        for it in releases:
            if it.version in files and is_other(it, self.settings.store / files[it.version]):
                raise OtherBytesError(
                    f"node {self.name}: {files[it.version]} in its store, from which it serves "
                    f"{it.version}, is not the release's (sha256 {it.sha256[:12]}): put "
                    f"{self.archives / it.file} there and restart its TorchServe"
                )

    def _described(self, path: str) -> list[_Described]:
        answer = self._manage("GET", f"/{path}", missing_is_fine=True)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        return _DESCRIBED.validate_json(answer.content)

    def _gets_workers(self, model: str, version: str, wanted: Callable[[], bool]) -> bool:
        """Wait for a worker of a registered version: somebody may have registered it just now."""
        until = time.monotonic() + WORKERS_TIMEOUT_S
        while not self.versions(model).get(version):
            if time.monotonic() > until or not wanted():
                return False
            time.sleep(0.2)
        return True

    def _manage(
        self, method: str, path: str, *, missing_is_fine: bool = False, **options: Any
    ) -> httpx.Response:
        answer = self._call(method, path, **options)
        if not (missing_is_fine and answer.status_code == httpx.codes.NOT_FOUND):
            answer.raise_for_status()
        return answer

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        url = f"{self.settings.management}/models{path}"
        return self._ask("management", method, url, **options)

    def _ask(
        self,
        kind: Kind,
        method: str,
        url: str,
        *,
        timeout_s: float = PROBE_TIMEOUT_S,
        **options: Any,
    ) -> httpx.Response:
        token = self.token(kind)
        answer = ask(method, url, token, timeout_s=timeout_s, **options)
        if answer.status_code == httpx.codes.BAD_REQUEST and _INVALID_KEY in answer.content:
            # Renewed by somebody else between the reading and the asking, or expired already: the
            # clock of the node's machine may be ahead.
            token = self._keys.token(kind, RENEW_BEFORE, refused=token)
            answer = ask(method, url, token, timeout_s=timeout_s, **options)
        return answer
