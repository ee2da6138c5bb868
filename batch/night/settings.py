"""The settings of a night, a YAML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from batch.storage import objects, uris
from sonode.console import UserError
from sonode.files.settings import read_settings

_REMEDY = "correct the file; docs/pacs.md has an example"


class Settings(BaseModel):
    """Of a night; an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pacs: str
    """Where studies come from, and results go: as `--from` of `sonode dicom pull`."""
    to: str | None = None
    """Another address for results. Only what has the images gets them."""
    receive: int | None = Field(default=None, ge=1, lt=1 << 16)
    """As `--receive` of `sonode dicom pull`."""
    plain: bool = False
    """Without TLS, as `--plain`."""
    title: str = "SONODE"
    """The AE title that sonode calls itself."""
    days: int = Field(default=7, ge=1, le=366)
    """How many days' studies are asked for: the night's date and those before. Those of nights that
    were missed since the last one are asked for, too."""
    modality: str = "US"
    boxes: str | None = None
    """As `--boxes` of `sonode dicom pull`."""
    connections: int = Field(default=2, ge=1, le=16)
    archive: str
    """As `--archive` of `sonode score`."""
    engine: str | None = None
    explain: str | None = None
    """The method of the heat maps; without it there are none."""
    folder: str
    """Where images, results and reports lie; path or s3:// URI."""

    @field_validator("boxes", "archive", "folder")
    @classmethod
    def _uri(cls, value: str | None) -> str | None:
        try:
            return None if value is None else uris.argument(value)
        except UserError as error:  # pydantic names the field
            raise ValueError(str(error)) from None


def read(path: Path) -> Settings:
    """Read a file of settings. Raises UserError for what is not understood, or has no archive."""
    settings = read_settings(path, Settings, "SETTINGS", _REMEDY)
    if not objects.is_s3(settings.archive) and not Path(settings.archive).is_file():
        # A typing error is said now, not after a pull of hours.
        raise UserError(f"SETTINGS {path}: archive {settings.archive}: no such file; {_REMEDY}")
    return settings
