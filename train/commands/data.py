"""Commands that make and describe a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from sonode.command_group import CommandGroup
from sonode.console import UserError, counted, say, table

if TYPE_CHECKING:
    from train.cohorts.cohort import Cohort

importers = typer.Typer(cls=CommandGroup, help="Make a cohort from a public or your own data set.")

OUT = typer.Argument(help="Folder for the cohort; images stay where they are.")
NAME = typer.Option("cohort", help="Name of the cohort in cards and reports.")
DROP_FAULTY = typer.Option(
    False, "--drop-faulty", help="Leave out faulty rows and list them, instead of stopping."
)
COLUMN = typer.Option(
    [],
    metavar="NAME=KIND",
    help="Whether an extra column is a `number` or a `label`; repeatable.",
)


def phantom(
    out: Path = typer.Argument(help="A new folder for the cohort."),
    patients: int = typer.Option(160, min=1, help="Number of patients, two to four images each."),
    seed: int = typer.Option(0, min=0, help="The same seed gives the same bytes."),
) -> None:
    """Make a synthetic cohort with every label; no patient is in it."""
    from train.importers.phantom import write_phantom
    from train.importers.table import import_voc

    write_phantom(out, patients, seed)
    cohort = import_voc(out, out, name=f"phantom-{patients}-{seed}", synthetic=True)
    images = counted(len(cohort.table), "image")
    say(f"synthetic cohort of {counted(patients, 'patient')}, {images}: {out}")


def _of_a_table(kind: Literal["csv", "voc", "yolo"], what: str, source_is: str) -> None:
    """Add the importer of a table of labels; its boxes are in it, or in LabelImg's files."""

    @importers.command(kind, help=what)
    def command(
        source: Path = typer.Argument(metavar="SRC", help=source_is),
        out: Path = OUT,
        name: str = NAME,
        drop_faulty: bool = DROP_FAULTY,
        column: list[str] = COLUMN,
    ) -> None:
        from train.importers.table import import_csv, import_voc, import_yolo

        importer = {"csv": import_csv, "voc": import_voc, "yolo": import_yolo}[kind]
        report(importer(source, out, name=name, drop_faulty=drop_faulty, kinds=kinds_of(column)))


_FOLDER = "Folder with images/, annotations/*.{} and labels.csv."
_of_a_table(
    "csv",
    "One table; boxes in it, or LabelImg files beside the images.",
    "A .csv or .parquet with patient_id, image and any labels.",
)
_of_a_table("voc", "LabelImg's Pascal VOC boxes with a table of labels.", _FOLDER.format("xml"))
_of_a_table("yolo", "LabelImg's YOLO boxes with a table of labels.", _FOLDER.format("txt"))


def _of_a_public_set(kind: Literal["busi", "bus-bra", "breast"], what: str, source_is: str) -> None:
    """Add the importer of a public data set."""

    @importers.command(kind, help=what)
    def command(
        source: Path = typer.Argument(metavar="SRC", help=source_is),
        out: Path = OUT,
        drop_faulty: bool = DROP_FAULTY,
    ) -> None:
        from train.importers.public_sets.breast_lesions_usg import import_breast
        from train.importers.public_sets.bus_bra import import_bus_bra
        from train.importers.public_sets.busi import import_busi

        importer = {"busi": import_busi, "bus-bra": import_bus_bra, "breast": import_breast}[kind]
        report(importer(source, out, drop_faulty=drop_faulty))


_of_a_public_set(
    "busi", "BUSI: boxes from masks, malignancy by folder, ALNM missing.", "BUSI's top folder."
)
_of_a_public_set(
    "bus-bra",
    "BUS-BRA: malignancy by biopsy, histology and BI-RADS, ALNM missing.",
    "Folder with bus_data.csv, Images/, Masks/.",
)
_of_a_public_set(
    "breast",
    "BrEaST-Lesions-USG: boxes from tumour masks, age and BI-RADS, ALNM missing.",
    "Folder with the .xlsx and the PNGs.",
)


@importers.command()
def dicom(
    source: Path = typer.Argument(metavar="SRC", help="Folder of DICOM files, at any depth."),
    out: Path = OUT,
    table: Path | None = typer.Option(
        None,
        help="A .csv or .parquet with instance_uid or file, frame of loops, box and labels. "
        "Default: labels.csv in SRC.",
    ),
    patient_key: Path | None = typer.Option(
        None,
        help="The patient_key of another cohort, so that a patient has the same id in both.",
    ),
    name: str = NAME,
    drop_faulty: bool = DROP_FAULTY,
    column: list[str] = COLUMN,
) -> None:
    """DICOM files, loops too; boxes in a table, an SR or a presentation state."""
    from train.importers.dicom import import_dicom

    cohort = import_dicom(
        source,
        out,
        name=name,
        table=table,
        patient_key=patient_key,
        drop_faulty=drop_faulty,
        kinds=kinds_of(column),
    )
    report(cohort)


def describe(
    cohort: Path = typer.Argument(help="Folder of a cohort."),
    csv: Path | None = typer.Option(None, help="Also write the table to this file."),
) -> None:
    """Print the paper's Table 1: patients by malignancy and by lymph nodes, with p-values."""
    from train.cohorts.cohort import load_cohort
    from train.cohorts.describe import NOTES, table_one

    loaded = load_cohort(cohort)
    characteristics = table_one(loaded)
    kind = "SYNTHETIC cohort, no patient in it" if loaded.synthetic else "cohort"
    names = [
        what + (", " if what and value else "" if what else "  ") + value
        for what, value in zip(
            characteristics["characteristic"], characteristics["value"], strict=True
        )
    ]
    for title, columns in (
        (f"{kind}: {loaded.name}", ["all", "benign", "malignant", "p malignancy"]),
        ("malignant patients by axillary lymph nodes (ALN)", ["ALN-", "ALN+", "p ALN"]),
    ):
        cells = characteristics[columns].values.tolist()
        rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
        table(title, ["", *columns], rows)
    for note in NOTES:
        say(note)
    if csv is not None:
        characteristics.to_csv(csv, index=False)


def kinds_of(columns: list[str]) -> dict[str, str]:
    """NAME=KIND, as given by --column, as name -> kind.

    Raises UserError: no `number` or `label`, or a name twice.
    """
    kinds: dict[str, str] = {}
    for text in columns:
        name, _, kind = text.partition("=")
        if kind not in ("number", "label") or name in kinds:
            raise UserError(f"--column {text}: give each NAME=number or NAME=label once")
        kinds[name] = kind
    return kinds


def report(cohort: Cohort) -> None:
    """Print the size of a cohort and its labels, the missing ones too."""
    rows = cohort.table
    boxes = counted(len(rows), "lesion box", "lesion boxes")
    say(f"cohort of {cohort.patients}, {boxes}: {cohort.folder}")
    for column, labels in (
        *((name, rows[name]) for name in ("malignant", "alnm")),
        ("n_nodes", rows["n_nodes"] > 0),
    ):
        if labels.isna().all():
            say(f"  {column}: missing in every row; only a column of this name is read as it")
            continue
        say(
            f"  {column}: {int((labels == True).sum())} positive, "  # noqa: E712
            f"{int((labels == False).sum())} negative, {int(labels.isna().sum())} missing"  # noqa: E712
        )
    for kind, columns in (("number", cohort.covariates), ("label", cohort.categorical)):
        for column in columns:
            values = rows[column]
            say(
                f"  {column}: {kind}, {counted(values.nunique(), 'value')}, "
                f"{int(values.isna().sum())} missing"
            )
    for column in cohort.partitions:
        use = "training uses it" if column == "split" else f"for --data.folds {column}"
        say(f"  {column}: partition, {counted(rows[column].nunique(), 'part')}; {use}")
