"""What the page asks for, and the answers; images are in memory alone.

open_image, open_row    an image's bytes, or a row of a run -> its id, size and frames
png                     a stored frame, to look at
score                   a box -> scores, warnings in words, heat maps as layers
judge, read             what the reader says -> lines of the record
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from archives.serving.predict import Answer, Fields
from model_def.limits import MAX_DICOM_BYTES
from sonode.console import UserError
from sonode.reader.judgements.judging import Judgement, Judging, Reading, Refused, key_of
from sonode.reader.judgements.study import Key, Stage
from sonode.reader.layers import layer, legend
from sonode.reader.results import Results
from sonode.reader.sources import Source
from sonode.reader.words import HEADS, in_words

KEPT_BYTES = 2 * MAX_DICOM_BYTES  # of images; the page sends one again that was forgotten
KEPT_ANSWERS = 200
EXPLAIN = "gradcam+grid"


class ScoreRequest(BaseModel):
    """A box on a frame of an image that the page has opened."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: int
    image: str
    frame: int = Field(ge=0)
    roi: list[int] = Field(min_length=4, max_length=4)


class Image:
    """An image's bytes, and what its frames looked like."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.frames: dict[int, dict[str, Any]] = {}


class Reader:
    """One reading session; any number of tabs share it."""

    def __init__(
        self,
        sources: Sequence[Source],
        results: Results | None = None,
        judging: Judging | None = None,
    ) -> None:
        """`judging`: where what the reader says is recorded, if it is."""
        self._sources, self._results, self._judging = sources, results, judging
        self._study = judging.study if judging else None
        if self._study:
            self._study.only_rows = results is not None
        self._images: OrderedDict[str, Image] = OrderedDict()
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """What the page says at all times, and which of its parts are there."""
        return {
            "sources": [source.facts for source in self._sources],
            "record": self._judging is not None,
            "who": self._judging.who() if self._judging else "",
            "study": [*self._judging.questions] if self._judging and self._study else None,
            "max_bytes": MAX_DICOM_BYTES,
            "run": None if self._results is None else self._results.about(self._study),
            "titles": HEADS,
            "legend": base64.b64encode(legend()).decode(),
        }

    def open_image(self, data: bytes, frame: int = 0, roi: list[int] | None = None) -> Answer:
        """Keep an image; answer its id, its frames, and the size of the frame.

        `roi`: of a row, by which a study knows it.
        """
        if self._study and self._study.only_rows and roi is None:
            why = "this study is of the rows of a run that have a box; open one of those"
            return _refusal(409, "no_row", why)
        key = hashlib.sha256(data).hexdigest()
        with self._lock:
            self._images[key] = self._images.pop(key, Image(data))
            while sum(len(it.data) for it in self._images.values()) > KEPT_BYTES:
                self._images.popitem(last=False)
        status, body = self._frame(key, frame)
        body.pop("png", None)
        study = {"study": self._study.opened(key, frame, roi)} if self._study else {}
        return status, {"id": key, **study, **body}

    def open_row(self, number: int) -> Answer:
        """As `open_image`, of a row of the results, with its box and frame."""
        if self._results is None:
            return _refusal(404, "no_run", "no run is open; start the reader with --run")
        try:
            row = self._results.image(number)
        except UserError as error:
            return _refusal(404, "no_image", str(error))
        status, body = self.open_image(row.data, row.frame, row.roi)
        return status, {**body, "roi": row.roi, "frame": row.frame, "changed": row.changed}

    def rows(self, which: str, order: str, start: int) -> Answer:
        """A page of the results; see `Results.rows`."""
        if self._results is None:
            return _refusal(404, "no_run", "no run is open; start the reader with --run")
        return 200, self._results.rows(which, order, start, self._study)

    def png(self, image: str, frame: int) -> Answer:
        """A stored frame as PNG, under `png`."""
        return self._frame(image, frame)

    def score(self, asked: ScoreRequest) -> Answer:
        """The source's answer for the box; its heat maps become layers, its warnings sentences."""
        if not 0 <= asked.source < len(self._sources):
            return _refusal(404, "no_model", "there is no such model; reload the page")
        kept = self._images.get(asked.image)
        if kept is None:
            return _forgotten()
        case = Key(asked.image, asked.frame, tuple(asked.roi))
        if self._study and (why := self._study.why_hidden(case, asked.source)):
            return _refusal(403, "hidden", why)
        if asked.frame not in kept.frames:  # whose size and digest go to the record
            status, body = self._frame(asked.image, asked.frame)
            if status != 200:
                return status, body
        facts = kept.frames[asked.frame]
        fields = {"roi": ",".join(map(str, asked.roi)), "explain": EXPLAIN}
        if facts["frames"] > 1:
            fields["frame"] = str(asked.frame)
        status, body = self._scored(asked.source, kept.data, fields)
        if status != 200:
            return status, body
        key = secrets.token_hex(8)
        answered = {
            "model": body["model"],
            "roi": body["roi"],
            "heads": body["heads"],
            "frame": asked.frame,
            "image_sha256": asked.image,
            **{name: facts[name] for name in ("width", "height", "pixels_sha256")},
        }
        with self._lock:
            self._answers[key] = answered
            if len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        if self._study:
            self._study.shown(key_of(answered))
        warnings = [*body["warnings"], *([] if body["consistent"] else ["inconsistent"])]
        layers = {
            head: {
                "box": its["box"],
                "max": its["max"],
                "target": its["target"],
                "png": base64.b64encode(layer(its["grid"])).decode(),
            }
            for head, its in body["heatmaps"].items()
        }
        told = {name: its for name, its in body.items() if name != "heatmaps"}
        return 200, {**told, "warnings": in_words(warnings), "layers": layers, "answer": key}

    def judge(self, said: Judgement) -> Answer:
        """Add a line to the record."""
        if self._judging is None or self._study:
            return _refusal(404, "no_record", "nothing is recorded; start the reader with --record")
        answer = self._answers.get(said.answer)
        if answer is None or said.head not in answer["heads"]:
            return _refusal(409, "no_answer", "that score is no longer kept; score the box again")
        try:
            self._judging.judge(said, answer, self._others(said.head, answer))
        except Refused as error:
            return _refusal(error.status, error.code, str(error))
        return 200, {"recorded": True}

    def read(self, stage: Stage, said: Reading) -> Answer:
        """Add a reading of a study to the record; answer how far the case is now."""
        if self._judging is None or self._study is None:
            return _refusal(404, "no_study", "no study is under way; start it with --study")
        kept = self._images.get(said.image)
        if kept is None or said.frame not in kept.frames:
            return _forgotten()
        answer = self._answers.get(said.answer or "")
        try:
            return 200, {"study": self._judging.read(stage, said, kept.frames[said.frame], answer)}
        except Refused as error:
            return _refusal(error.status, error.code, str(error))

    def _scored(self, source: int, image: bytes, fields: Fields) -> Answer:
        """The source's answer; a study takes those of its own archive alone."""
        status, body = self._sources[source].score(image, fields)
        known = [it.facts["model"]["sha256"] for it in self._sources if it.facts["model"]]
        if self._study and status == 200 and body["model"]["sha256"] not in known:
            why = "the server answers with another model than --archive; tell who runs the reader"
            return _refusal(409, "other_model", why)
        return status, body

    def _others(self, head: str, answer: dict[str, Any]) -> list[str]:
        """The head's labels but the one answered; none where the archive is not here."""
        known = (it.facts for it in self._sources if it.facts["model"])
        digest = answer["model"]["sha256"]
        labels: dict[str, list[str]] = next(
            (it["labels"] for it in known if it["model"]["sha256"] == digest), {}
        )
        return [it for it in labels.get(head, []) if it != answer["heads"][head]["label"]]

    def _frame(self, image: str, number: int) -> Answer:
        kept = self._images.get(image)
        if kept is None:
            return _forgotten()
        status, body = self._sources[0].frame(kept.data, number)
        if status == 200:
            facts = {name: value for name, value in body.items() if name != "png"}
            kept.frames[number] = facts
            body = {**body, "warnings": in_words(body["warnings"])}
        return status, body


def _refusal(status: int, code: str, message: str) -> Answer:
    return status, {"code": code, "message": message, "field": None}


def _forgotten() -> Answer:
    return _refusal(410, "image_forgotten", "the image is no longer in memory; open it again")
