"""The commands of this room; heavy imports stay inside the functions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import sonode_console
from sonode_console import UserError, say

if TYPE_CHECKING:
    from batch.scorer import RunSummary


def mount(app: typer.Typer) -> None:
    """Add this room's commands to `app`."""
    app.command()(score)


def score(
    manifest: str = typer.Argument(help="A Parquet file or a folder of them; path or s3:// URI."),
    out: str = typer.Argument(help="A new folder for the results; path or s3:// URI."),
    *,
    archive: str = typer.Option(help="The .mar archive to score with; path or s3:// URI."),
    explain: str = typer.Option("", help="A heat map per head by this method, e.g. gradcam."),
    batch_size: int = typer.Option(16, min=1, help="Images that go through the network together."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as one JSON line."),
) -> None:
    """Score every image of a manifest with an archive, into Parquet."""
    from archives.loader import load_archive
    from batch import scorer

    with _local_copy(archive) as path, load_archive(path) as loaded:
        summary = scorer.score(
            manifest,
            out,
            loaded,
            explain=explain or None,
            batch_size=batch_size,
            progress=sonode_console.progress,
        )
    if as_json:
        say(json.dumps({"out": out, **dataclasses.asdict(summary)}))
    else:
        _show(summary, out)
    if summary.by_status["failed"]:
        raise typer.Exit(1)


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    """Give an archive as a local file, fetched from S3 for the length of the block if need be."""
    import tempfile

    from batch import storage
    from batch.storage_errors import StorageError

    if not storage.is_s3(uri):
        yield Path(uri)
        return
    try:
        data = storage.read(uri).data
    except StorageError as error:
        raise UserError(f"archive {uri}: {error}") from None
    with tempfile.TemporaryDirectory(prefix="sonode-") as folder:
        path = Path(folder) / uri.rpartition("/")[2]
        path.write_bytes(data)
        yield path


def _show(summary: RunSummary, out: str) -> None:
    model = summary.model
    say(f"{summary.rows} rows through {model['name']} {model['version']} on {model['engine']}")
    for status, count in summary.by_status.items():
        say(f"  {status:<24} {count}")
    for code, count in summary.by_code.items():
        say(f"    {code:<22} {count}")
    waited = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in summary.seconds.items())
    say(f"{summary.images_per_second:.1f} images/s (waited for {waited})")
    say(f"results: {out}")
