"""The commands of `reader`; heavy imports stay inside the functions."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import typer

from sonode.command_group import CommandGroup
from sonode.console import UserError, counted, say
from sonode.defaults import READER_PORT

reader = typer.Typer(
    cls=CommandGroup,
    invoke_without_command=True,
    help="Run a page to draw a box in an image and see scores and heat maps. Not a medical device.",
    rich_markup_mode=None,
)


def mount(app: typer.Typer) -> None:
    """Add the commands of `reader` to `app`."""
    app.add_typer(reader, name="reader", rich_help_panel="Serve")


@reader.callback()
def serve(
    context: typer.Context,
    *,
    archive: list[Path] = typer.Option([], help="A .mar to score with, repeatable."),
    store: Path | None = typer.Option(None, help="A folder: every .mar in it."),
    url: str | None = typer.Option(None, help="A gateway, or a server of `sonode serve`."),
    model: str = typer.Option("breast_us", help="The model's name on that server."),
    key_file: Path | None = typer.Option(
        None, help="TorchServe's key_file.json. Default: SONODE_TOKEN, then that of `serve`."
    ),
    engine: str | None = typer.Option(None, help="Engine of the archives."),
    run: list[str] = typer.Option(
        [], help="Results of `sonode score` to go through; twice: two models, same manifest."
    ),
    images: Path = typer.Option(Path(), help="Where relative image_uris of the run begin."),
    record: Path | None = typer.Option(None, help="File that gets what the reader says."),
    study: bool = typer.Option(
        False, "--study", help="Show scores only after a first reading, and ask again with them."
    ),
    reader_code: str = typer.Option("", "--reader", help="Who reads, as a code, for the record."),
    port: int = typer.Option(
        READER_PORT, min=0, max=65535, help="Port on loopback; 0: a free one."
    ),
) -> None:
    """Serve the page on this machine until Ctrl-C, and print its address."""
    if context.invoked_subcommand is not None:
        return
    from archives.serving.predict import client_name, server
    from sonode.files.atomic import scratch
    from sonode.reader.app import Reader
    from sonode.reader.http_server import ReaderServer
    from sonode.reader.judgements.judging import Judging
    from sonode.reader.judgements.record import Record
    from sonode.reader.results import Results
    from sonode.reader.sources import ArchiveSource, ServerSource, Source

    paths = [*archive, *(_in_store(store) if store else [])]
    if not paths and url is None:
        raise UserError("nothing to score with: give --archive, --store or --url")
    if len(run) > 2:
        raise UserError(f"--run: {len(run)} runs; give one, or two to compare")
    if study and record is None:
        raise UserError("--study: give the file of the readings, too: --record FILE")
    if study and len(paths) != 1:
        raise UserError("--study: needs one archive, whose labels are asked for: --archive A.mar")
    results = Results(run, str(images.absolute())) if run else None
    kept = Record(record) if record else None
    # Leaving by the exception ends the archives' processes at once.
    with suppress(KeyboardInterrupt), scratch("sonode-reader-") as temp, ExitStack() as held:
        sources: list[Source] = []
        if url is not None:
            score = held.enter_context(server(url, model, key_file))
            sources.append(ServerSource(f"{model} at {url}", score))
        archives = [ArchiveSource(path, engine, temp, held) for path in paths]
        sources += archives
        judging = None
        if kept is not None:
            asked = partial(client_name, url, key_file) if url else _nobody
            judging = Judging(
                kept, reader_code, asked, _questions(archives[0].facts) if study else ()
            )
        with ReaderServer(Reader(sources, results, judging), port) as listening:
            if url is None:
                archives[0].open()
            say(f"reader: {listening.url}")
            say("Open this address in a browser on this machine. Ctrl-C ends it.")
            listening.serve_forever()
    say("stopped")


@reader.command()
def export(
    file: Path = typer.Argument(
        metavar="READING", help="The FILE of `sonode reader --record FILE`."
    ),
    out: Path = typer.Argument(help="A new .csv or .parquet."),
    *,
    run: str | None = typer.Option(
        None, help="Results of `sonode score` that were read: a table for `sonode import csv`."
    ),
    images: Path = typer.Option(Path(), help="Where relative image_uris of the run begin."),
    first: bool = typer.Option(
        False, "--first", help="With --run: only readings before the scores were shown (a study)."
    ),
) -> None:
    """Write what readers said as a table: a row for each answer; with --run, for each box."""
    from sonode.reader.judgements import record

    if run is None and first:
        raise UserError("--first: is of a cohort's table; give --run, too")

    def make() -> Any:
        if run is None:
            return record.as_table(file)
        from sonode.reader.cohort_table import cohort_table

        return cohort_table(file, run, str(images.absolute()), first=first)

    say(f"{counted(record.export(make, out), 'row')}: {out}")


@reader.command()
def study(
    file: Path = typer.Argument(metavar="READING", help="FILE of `sonode reader --study`."),
    cohort: Path = typer.Argument(help="The cohort that has the true labels."),
    *,
    archive: Path = typer.Option(..., help="The .mar that was shown: its heads and labels."),
    json_file: Path | None = typer.Option(None, "--json", help="Also write the figures here."),
    seed: int = typer.Option(0, min=0, help="Seed of the bootstrap."),
) -> None:
    """Sensitivity and specificity of readers without the scores and with them."""
    from sonode.defaults import BOOTSTRAP_DRAWS
    from sonode.reader.judgements.measure import show, write
    from sonode.reader.judgements.measure import study as run
    from train.measures.measure import Resampling

    found = run(file, cohort, archive, Resampling(resamples=BOOTSTRAP_DRAWS, seed=seed))
    show(found)
    if json_file is not None:
        write(found, json_file)


def _nobody() -> None:
    """There is no gateway to ask who reads."""


def _questions(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"head": head, "labels": labels, "given": facts["given"][head]}
        for head, labels in facts["labels"].items()
    ]


def _in_store(store: Path) -> list[Path]:
    found = sorted(store.glob("*.mar"), key=lambda path: path.stat().st_mtime, reverse=True)
    if not found:
        raise UserError(f"--store {store}: has no archive; pack one with `sonode pack`")
    return found
