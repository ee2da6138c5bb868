from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import typer

import batch.commands
from batch import several_archives
from batch.results import schema as results
from batch.storage import objects
from sonode.console import UserError


@pytest.fixture
def sonode(archive: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the command line with the fake archive behind every .mar that exists; give exit code."""

    @contextmanager
    def load_archive(path: Path, settings: dict[str, str]) -> Iterator[Any]:
        assert settings == {}
        assert path.name == "model.mar"
        assert path.read_bytes() == b"the archive"
        yield archive

    monkeypatch.setattr("archives.packing.loader.load_archive", load_archive)
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
    assert lines[4] == "tried now: 2, reused from previous results: 0"
    assert " images/s (fetch " in lines[5]
    assert lines[6].startswith(f"results: {out} (date=")
    assert lines[6].endswith("/model=fake-1.0)")
    assert lines[7].startswith(f"to read all of them: pandas.read_parquet('{out}'), or polars")
    with duckdb.connect() as database:  # by the pattern that Polars needs
        pattern = re.findall("'(.*?)'", lines[7])[1]
        found = database.sql(f"select status from read_parquet('{pattern}')").fetchall()
    assert sorted(found) == [("failed",), ("ok",)]
    assert sonode("score", manifest, out, "--archive", str(tmp_path / "model.mar")) == 1
    again = capsys.readouterr().out.splitlines()
    assert again[4:6] == [
        "tried now: 1, reused from previous results: 0",  # what failed
        "not tried now: 1 (done before, or without a RoI)",
    ]
    assert again[7:] == lines[6:]


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


def test_a_manifest_without_a_row_is_no_failure_and_is_said(
    sonode: Any,
    manifest: str,
    tmp_path: Path,
    put_table: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_table(manifest, {"image_uri": pa.array([], pa.string())})
    words = ("score", manifest, str(tmp_path / "out"), "--archive", str(tmp_path / "model.mar"))
    assert sonode(*words, "--json", "--on-finish", f"cat > {tmp_path}/told") == 0
    said = capsys.readouterr()
    assert said.err == "the manifest has no row, so nothing was scored\n"
    assert json.loads(said.out)["rows"] == 0
    assert json.loads((tmp_path / "told").read_text())["outcome"] == "no_rows"


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    sonode: Any, manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("score", manifest, str(out), "--archive", str(tmp_path / "model.mar"))
    words = (*words, "--date", "2026-11-22", "--explain", "gradcam")
    assert sonode(*words, "--dry-run") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["2", "rows", "in", "1", "shard,", "date", "2026-11-22"]
    assert lines[1] == ["shards", "done", "0"]
    assert lines[3] == ["to", "score", "2", "rows"]
    assert (lines[4][0], lines[4][2]) == ("estimated", "s") and int(lines[4][1]) >= 1
    assert not out.exists()
    assert sonode(*words) == 1
    capsys.readouterr()
    assert sonode(*words, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["shards_done"], plan["rows_ok"], plan["rows_failed"]) == (1, 1, 1)
    assert plan["rows_to_score"] == 1
    assert plan["estimated_seconds"] > 0
    assert sonode(*words, "--dry-run", "--json", "--keep-failed") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["rows_to_score"], plan["estimated_seconds"]) == (0, None)


def told(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    return found


def test_somebody_is_told_how_it_ended(
    sonode: Any, manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("score", manifest, str(tmp_path / "out"), "--archive", str(tmp_path / "model.mar"))
    command = ("--on-finish", f"cat > {tmp_path / 'told.json'}")
    assert sonode(*words, *command) == 1
    assert told(tmp_path)["outcome"] == "failed_rows"
    assert told(tmp_path)["by_code"] == {"image_truncated": 1}
    assert sonode(*words, *command, "--max-failures", "0") == 1
    assert told(tmp_path)["outcome"] == "stopped"
    assert "more rows failed than --max-failures 0 (image_truncated 1)" in capsys.readouterr().err
    with pytest.raises(UserError, match="neither a Parquet file"):
        sonode("score", "none", *words[2:], *command)
    assert told(tmp_path)["outcome"] == "error"
    assert "neither a Parquet file" in told(tmp_path)["message"]
    assert sonode(*words, "--on-finish", "exit 3") == 1  # of the row that failed
    assert "warning: --on-finish: the command ended with exit code 3" in capsys.readouterr().err


def test_a_webhook_is_told(
    sonode: Any,
    manifest: str,
    tmp_path: Path,
    put_table: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bodies: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if len(bodies) == 1 else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    words = ("score", manifest, str(tmp_path / "out"), "--archive", str(tmp_path / "model.mar"))
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/secret"
            assert sonode(*words, "--on-finish", url) == 1
            assert (bodies[0]["outcome"], bodies[0]["rows"]) == ("failed_rows", 2)
            put_table(manifest, {"image_uri": ["a.png"]})
            words = (words[0], manifest, str(tmp_path / "out2"), *words[3:])
            assert sonode(*words, "--on-finish", url) == 0  # of the night, whoever was told
            errors = capsys.readouterr().err
            assert "warning: --on-finish: the webhook was not notified (500)" in errors
            assert "secret" not in errors
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.live
def test_all_of_it_in_s3(sonode: Any, s3: str, put_table: Any) -> None:
    objects.write(f"{s3}/model.mar", b"the archive")
    objects.write(f"{s3}/a.png", b"p=0.5")
    manifest = put_table(f"{s3}/m.parquet", {"image_uri": ["a.png"]})
    assert sonode("score", manifest, f"{s3}/out", "--archive", f"{s3}/model.mar") == 0
    assert results.read(f"{s3}/out")["malignancy_probability"].to_pylist() == [0.5]
    with pytest.raises(UserError, match=r"archive s3://.*/none\.mar: no such object"):
        sonode("score", manifest, f"{s3}/out2", "--archive", f"{s3}/none.mar")


def test_uris_as_spark_writes_them_are_taken_and_others_refused(
    sonode: Any, manifest: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("--archive", f"file://{tmp_path}/model.mar", "--since", f"file:{out}")
    assert sonode("score", f"file://{manifest}", f"file://{out}", *words) == 1
    assert results.read(str(out)).num_rows == 2
    with pytest.raises(UserError, match="S3 does not resolve"):
        sonode("score", "s3a://bucket/a/../m.parquet", str(out), *words)
    with pytest.raises(UserError, match="no path"):
        sonode("score", manifest, str(out), *words[:3], "")
    for uri in ("gs://bucket/out", "hdfs://host/out"):
        with pytest.raises(UserError, match=f"{uri}: a scheme that is not s3:// or file:///"):
            sonode("score", manifest, uri, *words)
    with pytest.raises(UserError, match=r"--on-finish ftp://\.\.\.: not a webhook; give"):
        sonode("score", manifest, str(out), *words[:2], "--on-finish", "ftp://user:secret@host")


def test_options_of_a_cluster_go_with_it(sonode: Any, manifest: str, tmp_path: Path) -> None:
    words = ("score", manifest, str(tmp_path / "out"), "--archive", str(tmp_path / "model.mar"))
    with pytest.raises(UserError, match="--executor spark: no such executor; give local or ray"):
        sonode(*words, "--executor", "spark")
    for name in ("local", "ray"):  # as the option was written before
        with pytest.raises(UserError, match=f"--engine {name}: .*; give --executor {name}"):
            sonode(*words, "--engine", name)
    for option, value in {"--address": "head:6379", "--workers": "2", "--worker-gpus": "0"}.items():
        with pytest.raises(UserError, match=f"{option}: needs --executor ray"):
            sonode(*words, option, value)


CHILD = """
import os, signal, sys
archive = sys.argv[5].partition("=")[2]
assert sys.argv[1:5] == ["-P", "-m", "sonode", "score"]
assert sys.argv[6:] == ["m", "out", "--retry-failed", "--date=2026-11-22"]
if archive == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit({"failed": 1, "sound": 0}[archive])
"""


@pytest.mark.parametrize(
    ("archives", "code"),
    [(["sound", "failed"], 1), (["killed", "sound"], 137), (["failed", "killed"], 137)],
)
def test_of_several_archives_none_ends_unheard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    archives: list[str],
    code: int,
) -> None:
    python = sys.executable
    (tmp_path / "child.py").write_text(CHILD)
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\nexec {python} {tmp_path}/child.py "$@"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    told = tmp_path / "told"
    first, second = archives
    words = ["sonode", "score", "m", "--archive", first, "out", f"--archive={second}"]
    monkeypatch.setattr(sys, "argv", [*words, "--retry-failed", "--date=2026-11-22"])
    found = several_archives.run(archives, "out", f"cat >> {told}")
    assert found == code
    errors = capsys.readouterr().err
    if "killed" not in archives:
        assert (errors, told.exists()) == ("", False)
        return
    assert (
        errors == "error: --archive killed: ended by signal 9; re-run the same command to resume\n"
    )
    assert json.loads(told.read_text()) == {
        "outcome": "error",
        "out": "out",
        "archive": "killed",
        "message": "ended by signal 9",
    }
