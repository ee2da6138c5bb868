"""policy.yaml: how fast a new version may take over, and what rolls it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sonode.files.settings import read_settings

Share = Annotated[float, Field(gt=0, lt=1)]
Percent = Annotated[float, Field(ge=0.01, le=100)]  # nginx splits by hundredths
Seconds = Annotated[float, Field(ge=0)]


class Policy(BaseModel):
    """The defaults suit a hospital with some hundreds of images a day; all times are seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shadow_percent: Percent = 100.0
    """Percentage of requests that are also sent to the shadow version. 100 doubles the work of the
    nodes: lower it where they are busy."""

    canary: tuple[Percent, ...] = (1, 5, 25, 50, 100)
    """Percentages of studies that the new version answers, step by step; rising, the last one
    100."""

    min_requests: Annotated[int, Field(ge=1)] = 100
    """Requests that the new version must have answered before a step can pass. At 1 % that needs
    10,000 requests in total: with few a day, start with a higher percentage."""

    min_studies: Annotated[int, Field(ge=1)] = 20
    """Studies that it must have answered; a client that names none counts as one per `study_s`."""

    study_s: Annotated[float, Field(gt=0)] = 5.0
    """Seconds after its first request at which a study is judged, once, by the share of its
    requests that fail, flip and so on; later requests of it do not count."""

    min_step_s: Seconds = 3600
    """Minimum time of a step, however many requests there are: a morning differs from an
    afternoon."""

    step_timeout_s: Annotated[float, Field(gt=0)] = 7 * 86400
    """A step that has not passed within this time pauses the rollout until a person decides; it
    never promotes by itself."""

    keep_warm_s: Seconds = 86400
    """How long the old version stays loaded on every node after the last step; meanwhile `abort`
    brings it back within a second or two."""

    max_error_rate: Share = 0.01
    """Share of the new version's requests that may fail where the old version does not fail the
    same request: a 5xx of a node (also where a second one answers), of node, worker or handler.
    Failures without a handler's code (a worker that died) within five seconds count once, since
    they have one cause; the share that fails in each five seconds has the same limit. Where the old
    version's share is larger, that is the limit."""

    max_odds_ratio: Annotated[float, Field(ge=1)] = 2.0
    """Limit of the odds of failing (any status but 200), and of being slow, over the old version's
    at the same time. 2: a share of 5 % may become 9.5 %."""

    slow_factor: Annotated[float, Field(ge=1)] = 1.2
    """An attempt of the new version is slow if it takes longer than this many times the old
    version's current p95; one of the old version, if it takes longer than the p95 itself."""

    max_unanswered: Share = 0.001
    """Share of clients' requests to the new version that may end with a 5xx after a second node was
    asked, or be given up by a client that waited longer than a second and twice the old version's
    p95, where the old version answers the same request. Where the old version's share is larger,
    that is the limit."""

    max_flip_rate: Share = 0.02
    """Share of a mirrored study's images that may get another label from the new version, or a
    refusal instead of a score or the reverse, on average over studies; per head."""

    max_difference: Share = 0.05
    """Mean absolute difference of the two versions' probabilities on mirrored studies; per head."""

    max_shift: Share = 0.15
    """Limit of the Kolmogorov-Smirnov distance between the two versions' probabilities, on the
    studies that each answers while both serve; per head."""

    golden_tolerance: Share = 0.01
    """Largest difference of a golden image's probability, sent through each node, from the
    archive's; at load each engine also has its own tolerance."""

    alpha: Share = 0.01
    """Highest probability that a version within all limits is rolled back by any of these tests
    over the whole rollout; divided evenly among guards, heads and steps."""

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
