"""What a reader says, as lines of the record: of a score, or before and after it in a study."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sonode.console import UserError
from sonode.reader.judgements.record import COLUMNS, Record, named
from sonode.reader.judgements.study import Key, Stage, Study

CANNOT = "cannot judge"
Verdict = Literal["agree", "disagree", "cannot judge"]


class Judgement(BaseModel):
    """What a reader says of one head of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    answer: str
    head: str
    verdict: Verdict
    note: str = Field(max_length=1000)


class Reading(BaseModel):
    """A reading of a study: the label that the reader gives for each head, or `cannot judge`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str
    frame: int = Field(ge=0)
    roi: list[int] = Field(min_length=4, max_length=4)
    labels: dict[str, str]
    note: str = Field(max_length=1000)
    answer: str | None
    """Of the scores that were seen; null for the first reading."""


class Refused(Exception):  # noqa: N818 - reads as what it is
    """A judgement that is not recorded, with status and code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Judging:
    """Writes the record. `questions`: of a study, each head with its labels; else empty."""

    def __init__(
        self,
        record: Record,
        reader: str,
        client: Callable[[], str | None],
        questions: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`reader`: a code of who reads. `client`: asks the gateway who that is, None without one.

        Raises UserError for a study by nobody, and where the record cannot be read.
        """
        self._record, self._reader, self._client = record, reader, client
        self.questions = questions
        self._lock = threading.Lock()
        self.study: Study | None = None
        if questions:
            self._who = self._whose()
            if not any(self._who.values()):
                raise UserError("--study: say who reads, as a code: --reader R1")
            self.study = study = Study(self._who, [it["head"] for it in questions])

            def known() -> list[dict[str, Any]]:
                study.catch_up(record.new())
                return []

            record.add(known)  # adds nothing; meanwhile no other process does

    def who(self) -> str:
        """Who is recorded, in words."""
        try:
            reader = named(self._whose()) or "nobody: no reader was named"
            return f"Your readings are recorded as {reader}."
        except UserError:
            return "Nothing can be recorded: the gateway does not say who reads."

    def judge(self, said: Judgement, answer: Mapping[str, Any], others: Sequence[str]) -> None:
        """Record a verdict on a head of `answer`; `others`: its other labels. Raises Refused."""
        label = answer["heads"][said.head]["label"]
        its = label if said.verdict == "agree" else None
        if said.verdict == "disagree" and len(others) == 1:
            its = others[0]
        told = {"verdict": said.verdict, "reader_label": its, "note": said.note}
        self._add(lambda: [{**told, **scored(answer, said.head)}], self._asked())

    def read(
        self,
        stage: Stage,
        said: Reading,
        facts: Mapping[str, Any],
        answer: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Record a reading; give what the page is told of the case. Raises Refused.

        `facts`: width, height and `pixels_sha256` of the frame. `answer`: the scores of the second
        reading.
        """
        if self.study is None:
            raise Refused(404, "no_study", "no study is under way; start the reader with --study")
        known = {it["head"]: {*it["labels"], CANNOT} for it in self.questions}
        if {*said.labels} != {*known} or any(it not in known[at] for at, it in said.labels.items()):
            raise Refused(400, "malformed_request", "labels: choose one for each question")
        key = Key(said.image, said.frame, tuple(said.roi))
        if stage == "after" and (answer is None or key != key_of(answer)):
            raise Refused(409, "no_answer", "those scores are no longer kept; open the image again")
        (x_min, y_min, x_max, y_max), width, height = said.roi, facts["width"], facts["height"]
        if not (0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height):
            raise Refused(422, "invalid_roi", f"the box is not within {width} x {height} pixels")
        whose = self._asked()
        if whose != self._who:
            raise Refused(409, "other_reader", "the gateway names another reader; start again")
        study = self.study

        def lines() -> list[dict[str, Any]]:
            study.catch_up(self._record.new())
            if why := study.why_not(stage, key):
                raise Refused(409, "not_now", why)
            told = {"stage": stage, "note": said.note, **study.time_of(stage, key)}
            return [
                {**told, **read(stage, head, label, said, facts, answer)}
                for head, label in said.labels.items()
            ]

        with self._lock:
            self._add(lines, whose)
            study.read(stage, key)
        return study.facts(key)

    def _add(self, lines: Callable[[], list[dict[str, Any]]], whose: Mapping[str, Any]) -> None:
        now = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **whose}
        try:
            self._record.add(lambda: [{**dict.fromkeys(COLUMNS), **now, **it} for it in lines()])
        except UserError:
            message = (
                "NOT recorded: the record has changed and is not whole; start the reader again"
            )
            raise Refused(507, "not_recorded", message) from None
        except OSError as error:
            why = error.strerror or str(error)
            message = f"NOT recorded: {why}; tell who runs the reader"
            raise Refused(507, "not_recorded", message) from None

    def _whose(self) -> dict[str, str | None]:
        return {"client": self._client(), "reader": self._reader or None}

    def _asked(self) -> dict[str, str | None]:
        try:
            return self._whose()
        except UserError as error:
            raise Refused(502, "who", f"NOT recorded, who reads is not known: {error}") from None


def key_of(answer: Mapping[str, Any]) -> Key:
    """The case that an answer is of."""
    return Key(answer["image_sha256"], answer["frame"], tuple(answer["roi"]))


def scored(answer: Mapping[str, Any], head: str) -> dict[str, Any]:
    """The columns that an answer gives for one of its heads."""
    its, model = answer["heads"][head], answer["model"]
    return {
        "head": head,
        **{name: its.get(name) for name in ("label", "probability", "threshold", "uncertain")},
        **{f"model_{name}": model[name] for name in ("name", "version", "sha256")},
        "engine": model["engine"],
        **_place(answer["roi"]),
        **{name: answer[name] for name in ("frame", "width", "height")},
        **{name: answer[name] for name in ("image_sha256", "pixels_sha256")},
    }


def read(
    stage: Stage,
    head: str,
    label: str,
    said: Reading,
    facts: Mapping[str, Any],
    answer: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The columns of one head of a reading; those of a score are empty for the first one."""
    given = None if label == CANNOT else label
    if stage == "before" or answer is None:
        return {
            "head": head,
            "verdict": CANNOT if given is None else None,
            "reader_label": given,
            **_place(said.roi),
            "frame": said.frame,
            "image_sha256": said.image,
            **{name: facts[name] for name in ("width", "height", "pixels_sha256")},
        }
    agree: Verdict = "agree" if given == answer["heads"][head]["label"] else "disagree"
    verdict = CANNOT if given is None else agree
    return {"verdict": verdict, "reader_label": given, **scored(answer, head)}


def _place(roi: Sequence[int]) -> dict[str, int]:
    return dict(zip(("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max"), roi, strict=True))
