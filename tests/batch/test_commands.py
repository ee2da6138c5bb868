from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import batch.commands
from batch import results, storage
from sonode_console import UserError


@pytest.fixture
def sonode(archive: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the command line with the fake archive behind every .mar that exists; give exit code."""
    loader = ModuleType("archives.loader")

    @contextmanager
    def load_archive(path: Path) -> Iterator[Any]:
        assert path.name == "model.mar"
        assert path.read_bytes() == b"the archive"
        yield archive

    loader.load_archive = load_archive  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "archives.loader", loader)
    app = typer.Typer()
    app.callback()(lambda: None)  # keeps `score` a name of its own
    batch.commands.mount(app)

    def call(*words: str) -> int:
        return app(list(words), standalone_mode=False) or 0

    return call


@pytest.fixture
def manifest(tmp_path: Path, put_table: Any) -> str:
    for name, data in {"a.png": b"p=0.5", "b.png": b"bad", "model.mar": b"the archive"}.items():
        (tmp_path / name).write_bytes(data)
    return str(put_table(str(tmp_path / "m.parquet"), {"image_uri": ["a.png", "b.png"]}))


def test_summary_and_exit_code(
    sonode: Any, manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert sonode("score", manifest, out, "--archive", str(tmp_path / "model.mar")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 rows through fake 1.0 on eager"
    assert [line.split() for line in lines[1:4]] == [
        ["ok", "1"],
        ["failed", "1"],
        ["image_truncated", "1"],
    ]
    assert " images/s (waited for fetch " in lines[4]
    assert lines[5] == f"results: {out}"


def test_json_is_one_line(
    sonode: Any,
    manifest: str,
    tmp_path: Path,
    put_table: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_table(manifest, {"image_uri": ["a.png"]})
    out = str(tmp_path / "out")
    archive = str(tmp_path / "model.mar")
    words = ("score", manifest, out, "--archive", archive, "--explain", "gradcam", "--json")
    assert sonode(*words) == 0
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert record["out"] == out
    assert record["by_status"] == {"ok": 1, "failed": 0}
    assert record["explain"] == "gradcam"
    assert "alnm_heatmap_uri" in results.read(out).column_names


@pytest.mark.live
def test_all_of_it_in_s3(sonode: Any, s3: str, put_table: Any) -> None:
    storage.write(f"{s3}/model.mar", b"the archive")
    storage.write(f"{s3}/a.png", b"p=0.5")
    manifest = put_table(f"{s3}/m.parquet", {"image_uri": ["a.png"]})
    assert sonode("score", manifest, f"{s3}/out", "--archive", f"{s3}/model.mar") == 0
    assert results.read(f"{s3}/out")["malignancy_probability"].to_pylist() == [0.5]
    with pytest.raises(UserError, match=r"archive s3://.*/none\.mar: no such object"):
        sonode("score", manifest, f"{s3}/out2", "--archive", f"{s3}/none.mar")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, typer, batch.commands as c; c.mount(typer.Typer());"
        "sys.exit(bool({'torch', 'boto3', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
