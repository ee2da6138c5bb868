"""What TorchServe gives a service: a context for the start, and one for each batch."""

import json
from pathlib import Path
from types import SimpleNamespace


def context_of(folder: Path, **handler: object) -> SimpleNamespace:
    return SimpleNamespace(
        manifest=json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text()),
        model_yaml_config={},
        system_properties={"model_dir": str(folder), "gpu_id": None, "handler": handler},
    )


class FakeContext:
    """TorchServe's context as far as `handle` uses it."""

    def __init__(self, headers: list[dict[str, str]]) -> None:
        self.headers = headers
        self.status: dict[int, int] = {}
        self.content_type: dict[int, str] = {}
        self.told: list[dict[str, str]] = [{} for _ in headers]

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self.headers[index]

    def get_request_id(self, index: int) -> str:
        return f"request {index}"

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        assert isinstance(phrase, str)
        self.status[index] = code

    def set_response_content_type(self, index: int, value: str) -> None:
        self.content_type[index] = value

    def set_response_header(self, index: int, name: str, value: str) -> None:
        assert isinstance(value, str)  # or the worker dies
        self.told[index][name] = value
