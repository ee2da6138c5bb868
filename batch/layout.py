"""Where everything lies below OUT, the folder of the results; the names are relative to it.

    date=YYYY-MM-DD/model=NAME-VERSION/         the results of one manifest, date and model
        part-INDEX-KEY.parquet                  one shard
    _heatmaps/KEY-HEAD.png
    _dicom/date=YYYY-MM-DD/model=NAME-VERSION/
        part-INDEX-KEY.parquet                  which objects each row of that part has
        part-INDEX-KEY-ROW-KIND.dcm             an object: with the patient's name and id
    _pushed/PACS/date=YYYY-MM-DD/model=NAME-VERSION/
        part-INDEX-KEY.parquet                  what became of those objects at a PACS
    _units/date=YYYY-MM-DD/model=NAME-VERSION/
        lesion_id.parquet, study_id.parquet, ...    a row for each lesion, study, patient
    _runs/date=YYYY-MM-DD/model=NAME-VERSION/
        started.json                            which run owns the folder of results of that name
        run.json, report.html                   written last: the run is complete
    _runs/manifests/KEY-NAME-VERSION.json       the date of a manifest
    _runs/columns.arrow                         the type of each column that manifests bring along
    _runs/store-check                           what every run writes to try the store

Readers of Parquet datasets pass over folders whose names begin with `_`.
"""

from __future__ import annotations

PARTITIONS = ("date", "model")  # columns that readers add, from the names of the folders
RUNS = "_runs"
DICOM = "_dicom"
PUSHED = "_pushed"
UNITS = "_units"
COLUMN_TYPES = f"{RUNS}/columns.arrow"
STORE_CHECK = f"{RUNS}/store-check"
ALL_PARTS = "date=*/*/*.parquet"  # Polars does not pass over folders with a `_`


def partition(date: str, name: str, version: str) -> str:
    """The folder of the results of one manifest, date and model."""
    return f"date={date}/model={name}-{version}"


def part(partition: str, index: int, key: str) -> str:
    """The file of a shard's results."""
    return f"{partition}/part-{index:05d}-{key}.parquet"


def is_part(uri: str) -> bool:
    """Whether a file of a folder of results holds results."""
    return uri.endswith(".parquet")


def units(partition: str, column: str) -> str:
    """The scores per lesion, study or patient: of the rows that share a value of the column."""
    return f"{UNITS}/{partition}/{column}.parquet"


def heat_map(key: str, head: str) -> str:
    """The heat map of a row and head."""
    return f"_heatmaps/{key}-{head}.png"


def dicom_record(partition: str, part: str) -> str:
    """Which DICOM objects the rows of a part have; `part` is its name without the ending."""
    return f"{DICOM}/{partition}/{part}.parquet"


def dicom_records(date: str) -> str:
    """The folder of all records of a date, and of their objects."""
    return f"{DICOM}/date={date}"


def date_of(uri: str) -> str:
    """The date of the results that a part or a record belongs to."""
    return uri.rpartition("/date=")[2].partition("/")[0]


def dicom_object(partition: str, row: str, kind: str) -> str:
    """A DICOM object of a row, which is named by its part and its number there."""
    return f"{DICOM}/{partition}/{row}-{kind}.dcm"


def dicom_ledger(pacs: str, record_uri: str) -> str:
    """What became of the objects of a record at a PACS."""
    return f"{PUSHED}/{pacs}/{record_uri.rpartition(f'/{DICOM}/')[2]}"


def started(partition: str) -> str:
    """The record of the run that owns a partition."""
    return f"{RUNS}/{partition}/started.json"


def run_record(partition: str) -> str:
    """What the last complete run of a partition was."""
    return f"{RUNS}/{partition}/run.json"


def report(partition: str) -> str:
    """The page of that run."""
    return f"{RUNS}/{partition}/report.html"


def manifest_date(key: str, name: str, version: str) -> str:
    """The record of the date that a manifest has for a model."""
    return f"{RUNS}/manifests/{key}-{name}-{version}.json"
