"""All that a server has loaded: versions by model, which one is the default, and changes of it."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError

from archives.asgi.metrics import Metrics
from archives.asgi.refused import Refused
from archives.asgi.settings import ArchiveSettings, ServerSettings
from archives.asgi.workers.jobs import Plan
from archives.asgi.workers.versions import Version
from archives.asgi.workers.worker_process import WorkerFailed
from archives.packing.members import MANIFEST, ArchiveError, check
from sonode.files.settings import faults_of
from sonode.traces import Traces

logger = logging.getLogger("sonode.server")


@dataclass
class Model:
    """The versions of one name; `default` answers where a request names none."""

    default: str
    versions: dict[str, Version] = field(default_factory=dict)


class Models:
    """The models of a server. `config` is its file, whose folder holds the unpacked archives."""

    def __init__(
        self,
        settings: ServerSettings,
        metrics: Metrics,
        config: Path,
        traces: Traces | None = None,
    ) -> None:
        self._settings, self._metrics, self._config = settings, metrics, config
        self._traces = traces
        self.by_name: dict[str, Model] = {}

    def find(self, name: str, version: str | None) -> Version:
        """The version that answers. Raises Refused (404)."""
        model = self.by_name.get(name)
        if model is None:
            raise Refused(404, "ModelNotFoundException", "Model not found: see GET /models")
        found = model.versions.get(model.default if version is None else version)
        if found is None:
            raise Refused(404, "ModelVersionNotFoundException", "Model version not found")
        return found

    async def register(
        self,
        file: str,
        name: str | None = None,
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay_ms: int | None = None,
        all_workers: bool = True,
    ) -> Version:
        """Load an archive of the store and wait for its workers; the first version is the default.

        Raises Refused: 404 no such archive; 409 the version is there; 400 the archive's settings;
        500 it cannot be unpacked, or a worker does not start. It is then not registered.
        """
        if Path(file).name != file or ":" in file:
            text = f"Given URL {file!r} does not match any allowed URL(s): give a file of the store"
            raise Refused(404, "ModelNotFoundException", text)
        archive = self._settings.store / file
        try:
            manifest, config = await asyncio.to_thread(_read, archive)
        except ArchiveError as error:
            raise Refused(404, "ModelNotFoundException", str(error)) from None
        except ValidationError as error:
            text = f"model-config.yaml of {file}: {faults_of(error)[0]}"
            raise Refused(400, "BadRequestException", text) from None
        except (yaml.YAMLError, TypeError):
            text = f"model-config.yaml of {file}: no keys and values"
            raise Refused(400, "BadRequestException", text) from None
        name, version = name or manifest["modelName"], str(manifest["modelVersion"])
        if name in self.by_name and version in self.by_name[name].versions:
            text = f"Model version {version} is already registered for model {name}"
            raise Refused(409, "ConflictStatusException", text)
        parent = self._config.parent / "tmp"
        folder = Path(tempfile.mkdtemp(prefix="archive-", dir=parent))
        default = self._settings
        plan = Plan(
            workers=config.minWorkers or workers or default.limits.default_workers_per_model,
            batch_size=config.batchSize or batch_size or default.batch_size,
            max_batch_delay_s=1e-3
            * next(
                it
                for it in (config.maxBatchDelay, max_batch_delay_ms, default.max_batch_delay_ms)
                if it is not None
            ),
            response_timeout_s=config.responseTimeout,
            startup_timeout_s=config.startupTimeout,
            queue_size=default.limits.job_queue_size,
            gpus=default.gpus,
        )
        made = Version(name, version, file, folder, plan, self._metrics, self._config, self._traces)
        self.by_name.setdefault(name, Model(version)).versions[version] = made
        try:
            await asyncio.to_thread(shutil.unpack_archive, archive, folder, "zip")
            await made.start(all_workers=all_workers)
        except (OSError, WorkerFailed) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            logger.error("%s is not registered: %s", file, words)
            self._forget(made)
            await self._end(made)
            raise Refused(500, "InternalServerException", str(words)) from None
        logger.info("model %s version %s is registered from %s", name, version, file)
        return made

    async def unregister(self, name: str, version: str | None) -> None:
        """Take a version off, once its waiting requests are answered. Raises Refused."""
        found = self.find(name, version)
        model = self.by_name[name]
        if found.version == model.default and len(model.versions) > 1:
            text = f"Cannot remove default version for model {name}"
            raise Refused(403, "InvalidModelVersionException", text)
        self._forget(found)
        await self._end(found)
        logger.info("model %s version %s is unregistered", name, found.version)

    def set_default(self, name: str, version: str) -> None:
        """Answer with this version where a request names none. Raises Refused."""
        self.by_name[name].default = self.find(name, version).version

    @property
    def healthy(self) -> bool:
        """Whether each default version has a worker."""
        return all(self.find(name, None).ready for name in self.by_name)

    async def stop(self) -> None:
        """Take all off."""
        versions = [it for model in self.by_name.values() for it in model.versions.values()]
        self.by_name.clear()
        await asyncio.gather(*map(self._end, versions))

    def _forget(self, version: Version) -> None:
        model = self.by_name.get(version.model)
        if model and model.versions.get(version.version) is version:
            del model.versions[version.version]
            if not model.versions:
                del self.by_name[version.model]
            elif model.default == version.version:  # the first, which did not start
                model.default = next(iter(model.versions))

    async def _end(self, version: Version) -> None:
        await version.stop()
        await asyncio.to_thread(shutil.rmtree, version.folder, ignore_errors=True)


def _read(archive: Path) -> tuple[dict[str, str], ArchiveSettings]:
    """An archive's manifest and settings, once every byte of it is checked."""
    check(archive)
    with zipfile.ZipFile(archive) as packed:
        manifest = json.loads(packed.read(MANIFEST))["model"]
        name = "model-config.yaml"
        given = yaml.safe_load(packed.read(name)) if name in packed.namelist() else None
    return manifest, ArchiveSettings(**(given or {}))
