"""The commands of `reader`; heavy imports stay inside the functions."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

import typer

from sonode.command_group import CommandGroup
from sonode.console import UserError, say
from sonode.defaults import READER_PORT

reader = typer.Typer(
    cls=CommandGroup,
    invoke_without_command=True,
    help="A page to draw a box in an image and see scores and heat maps. Not a medical device.",
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
        None, help="TorchServe's key_file.json; default: SONODE_TOKEN, then that of `serve`."
    ),
    engine: str | None = typer.Option(None, help="Engine of the archives."),
    run: list[str] = typer.Option(
        [], help="Results of `sonode score` to go through; twice: two models, same manifest."
    ),
    images: Path = typer.Option(Path(), help="Where relative image_uris of the run begin."),
    record: Path | None = typer.Option(
        None, help="File that gets a line for each agree, disagree, cannot judge."
    ),
    reader_code: str = typer.Option("", "--reader", help="Who reads, as a code, for the record."),
    port: int = typer.Option(
        READER_PORT, min=0, max=65535, help="Port on loopback; 0: a free one."
    ),
) -> None:
    """Serve the page on this machine until Ctrl-C, and print its address."""
    if context.invoked_subcommand is not None:
        return
    from archives.serving.predict import server
    from sonode.atomic_files import scratch
    from sonode.reader.app import Reader
    from sonode.reader.http_server import ReaderServer
    from sonode.reader.record import Record
    from sonode.reader.results import Results
    from sonode.reader.sources import ArchiveSource, ServerSource, Source

    paths = [*archive, *(_in_store(store) if store else [])]
    if not paths and url is None:
        raise UserError("nothing to score with: give --archive, --store or --url")
    if len(run) > 2:
        raise UserError(f"--run: {len(run)} runs; give one, or two to compare")
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
        with ReaderServer(Reader(sources, results, kept, reader_code), port) as listening:
            if url is None:
                archives[0].open()
            say(f"reader: {listening.url}")
            say("Open this address in a browser on this machine. Ctrl-C ends it.")
            listening.serve_forever()
    say("stopped")


@reader.command()
def export(
    file: Path = typer.Argument(help="The FILE of `sonode reader --record FILE`."),
    out: Path = typer.Argument(help="A new .csv or .parquet."),
) -> None:
    """Write what readers said as a table: a row for each agree, disagree, cannot judge."""
    from sonode.reader.record import export as run

    say(f"{run(file, out)} rows: {out}")


def _in_store(store: Path) -> list[Path]:
    found = sorted(store.glob("*.mar"), key=lambda path: path.stat().st_mtime, reverse=True)
    if not found:
        raise UserError(f"--store {store}: has no archive; pack one with `sonode pack`")
    return found
