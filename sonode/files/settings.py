"""Settings in a YAML file, checked once by a pydantic model; a fault becomes one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sonode.console import UserError
from sonode.files.yaml_keys import DuplicateKeyError, refuse_duplicate_keys

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path, kind: type[Settings], option: str, remedy: str) -> Settings:
    """Return the file as a `kind`; an empty one has the defaults.

    Raises UserError for a file that is not there, or with anything in it that is not understood; it
    names `option`, as `--policy`, and ends with `remedy`. Further faults are its details.
    """
    try:
        text = path.read_text(encoding="utf-8")
        refuse_duplicate_keys(text)
        found = yaml.safe_load(text)
        return kind.model_validate({} if found is None else found)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}; {remedy}") from None
    except DuplicateKeyError as error:
        raise UserError(f"{option} {path}: {error.problem}; keep one, {remedy}") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{option} {path}: is not valid YAML; {remedy}") from None
    except ValidationError as error:
        faults = faults_of(error, "the file")
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{option} {path}: {faults[0]}{more}; {remedy}", faults[1:]) from None


def faults_of(error: ValidationError, whole: str = "") -> list[str]:
    """`FIELD: what is wrong with it`, of each fault; `whole` names what is wrong in no field."""
    faults = []
    for it in error.errors():
        field = ".".join(map(str, it["loc"])) or whole
        text = it["msg"].removeprefix("Value error, ")
        faults.append(f"{field}: {text}" if field else text)
    return faults
