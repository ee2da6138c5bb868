"""policy.yaml: how fast a new version may take over, and what sends it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sonode.settings_file import read_settings

Share = Annotated[float, Field(gt=0, lt=1)]
Percent = Annotated[float, Field(ge=0.01, le=100)]  # nginx splits by hundredths
Seconds = Annotated[float, Field(ge=0)]


class Policy(BaseModel):
    """The defaults suit a hospital with some hundreds of images a day; all times are seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shadow_percent: Percent = 100.0
    """Of the requests, also sent to the new version while it is a shadow. All of them double the
    work of the nodes: lower it where they are busy."""

    canary: tuple[Percent, ...] = (1, 5, 25, 50, 100)
    """Of the studies, answered by the new version, step by step; rising, the last one 100."""

    min_requests: Annotated[int, Field(ge=1)] = 100
    """Requests that the new version must have answered at a step before it is judged good. At 1 %
    that is 10,000 in all: with few a day, begin with a higher percentage."""

    min_studies: Annotated[int, Field(ge=1)] = 20
    """Studies among them, at least; a client that names none counts as one each `study_s`."""

    study_s: Annotated[float, Field(gt=0)] = 5.0
    """A study is judged by the share of its requests that fail, flip and so on, once, when it is so
    old; later requests of it do not count."""

    min_step_s: Seconds = 3600
    """Time that a step takes at least, however many requests there are: a morning differs from an
    afternoon."""

    step_timeout_s: Annotated[float, Field(gt=0)] = 7 * 86400
    """A step that is not judged good within this time pauses the rollout and waits for a person;
    it never promotes."""

    keep_warm_s: Seconds = 86400
    """For so long the old version stays loaded on every node after the last step, and `abort`
    brings it back within a second or two."""

    max_error_rate: Share = 0.01
    """Of the new version's requests, how many may meet a failure that the old version does not
    have with the same request: status 5xx of a node (also where a second one answers), whether the
    node or a worker or the handler is at fault. Failures without a word of the handler (a worker
    that died) within five seconds are one, since they have one cause; the share that fails in each
    five seconds is held to it, too. As large a share as the old version's may fail anyway."""

    max_odds_ratio: Annotated[float, Field(ge=1)] = 2.0
    """How much greater the odds of failing (any status but 200), and of being slow, may be than the
    old version's at the same time. 2: a share of 5 % may be one of 9.5 %."""

    slow_factor: Annotated[float, Field(ge=1)] = 1.2
    """An attempt of the new version is slow if it takes that many times the p95 of the old version
    at the time; one of the old version, if it takes longer than the p95 itself."""

    max_unanswered: Share = 0.001
    """Of the clients' requests that went to the new version, how many may end with a 5xx, after the
    gateway has asked a second node, or be given up by a client that waited longer than a second and
    twice the old version's p95, where the old version answers the same request; as large a share as
    the old version's may anyway."""

    max_flip_rate: Share = 0.02
    """Of a mirrored study's images, how many may get another label by the new version, or a refusal
    in place of a score or the reverse, on average over studies; per head."""

    max_difference: Share = 0.05
    """Mean absolute difference of the two versions' probabilities on mirrored studies; per head."""

    max_shift: Share = 0.15
    """Distance (Kolmogorov-Smirnov) of the two versions' distributions of probabilities, on the
    studies that each answers while both serve; per head."""

    golden_tolerance: Share = 0.01
    """By how much a probability of a golden image, sent through each node, may differ from the
    archive's; each engine is also held to its own tolerance when it loads."""

    alpha: Share = 0.01
    """The probability, at most, that a version which is within all limits is rolled back by one of
    these tests, over the whole rollout: shared out evenly among guards, heads and steps."""

    @model_validator(mode="after")
    def _canary_rises_to_100(self) -> Self:
        steps = self.canary
        if not steps or steps[-1] != 100 or list(steps) != sorted(set(steps)):
            raise ValueError("canary: give rising percentages, the last one 100")
        return self


def read_policy(path: Path) -> Policy:
    """Return what the file says, and the defaults for the rest.

    Raises UserError for a file that is not there, or with anything in it that is not understood.
    """
    return read_settings(path, Policy, "--policy", "see docs/rollout.md")
