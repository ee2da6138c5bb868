"""The archive's own service under LitServe: python -m tests.benchmarks.litserve_server ARCHIVE PORT

The same pipeline, engine and threads as in TorchServe: rows are decoded one by one, as LitServe
does, and go through the network in its dynamic batches.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import litserve as ls
from fastapi import Body

from archives.packing.loader import load_archive
from archives.torchserve.worker_plan import plan


class Api(ls.LitAPI):
    """LitServe's verbs, each one of the service's."""

    def setup(self, device: str) -> None:
        """Open the archive in the worker process; it stays open as long as that lives."""
        cores = plan().workers * plan().threads
        self.context = load_archive(Path(sys.argv[1]), {"threads": cores})
        self.service = self.context.__enter__().service

    def decode_request(self, request: Annotated[bytes, Body()]) -> Any:
        """Bytes -> pixels."""
        item = self.service.preprocess({"body": request}, {})
        if isinstance(item, Exception):
            raise item
        return item

    def batch(self, inputs: list[Any]) -> list[Any]:
        """A list is what the service takes."""
        return inputs

    def predict(self, prepared: list[Any]) -> list[Any]:
        """The forward pass and the answers."""
        return list(self.service.score_prepared(prepared))

    def unbatch(self, output: list[Any]) -> list[Any]:
        """They are a list already."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The same body as from TorchServe."""
        return dict(output.body)


if __name__ == "__main__":
    api = Api(max_batch_size=8, batch_timeout=0.002)
    ls.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120).run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning"
    )
