import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from model_def.heads import HeadSpec, Hierarchy, probabilities
from sonode.console import UserError
from train.cohorts.labels import ParentNegative
from train.fitting.calibration import calibrate as calibration
from train.fitting.calibration import temperature
from train.fitting.calibration.calibrate import Calibrated, score_histograms
from train.statistics.binary import choose_threshold

NAN = math.nan


def calibrate(
    logits: torch.Tensor,
    labels: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
    point: str,
) -> tuple[HeadSpec, ...]:
    """One image a patient."""
    patients = [str(row) for row in range(len(logits))]
    facts = (heads, hierarchy, parent_negative, point)
    return calibration.calibrate(logits, labels, *facts, patients, 0.9).heads


def calibrated_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
) -> float:
    """One image a patient."""
    patients = [str(row) for row in range(len(logits))]
    return temperature.calibrated_loss(logits, labels, heads, hierarchy, parent_negative, patients)


def sampled(n: int, scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `scale` times too large for labels drawn from their sigmoid."""
    generator = torch.Generator().manual_seed(seed)
    honest = 1.5 * torch.randn(n, generator=generator)
    labels = (torch.rand(n, generator=generator) < honest.sigmoid()).float()
    return scale * honest, labels


@pytest.mark.parametrize("scale", [0.7, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(scale: float) -> None:
    head = HeadSpec(name="a", target="malignant", labels=("n", "y"))
    logits, labels = sampled(4000, scale)
    (found,) = calibrate(logits[:, None], labels[:, None], [head], "independent", "mask", "0.5")
    assert found.temperature == pytest.approx(scale, rel=0.1)


def test_each_head_by_what_it_learns_from(heads: tuple[HeadSpec, ...]) -> None:
    malignancy, is_malignant = sampled(4000, 2.0)
    alnm, has_nodes = sampled(4000, 4.0, seed=1)
    has_nodes[is_malignant == 0] = 1  # nonsense that must not be looked at
    logits, labels = torch.stack([malignancy, alnm], 1), torch.stack([is_malignant, has_nodes], 1)
    for hierarchy in ("independent", "chain"):
        found = calibrate(logits, labels, heads, hierarchy, "mask", "0.5")
        assert found[0].temperature == pytest.approx(2, rel=0.1)
        assert found[1].temperature == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("hierarchy", "parent_negative", "benign_too"),
    [
        ("independent", "mask", False),
        ("independent", "negative", True),
        ("chain", "mask", False),
        ("chain", "negative", False),
        ("max_constraint", "mask", True),
    ],
)
def test_a_child_on_benign_images_where_it_learned_from_them(
    heads: tuple[HeadSpec, ...],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
    benign_too: bool,
) -> None:
    # Its logits are 4 times too large on malignant images and honest on as many benign ones.
    (loud, has_nodes), (honest, calls) = sampled(4000, 4.0), sampled(4000, 1.0, seed=1)
    malignant = torch.cat([torch.ones(4000), torch.zeros(4000)])
    child, truth = torch.cat([loud, honest]), torch.cat([has_nodes, calls])
    logits, labels = torch.stack([2 * malignant - 1, child], 1), torch.stack([malignant, truth], 1)
    used = slice(None) if benign_too else slice(4000)

    def left(temperature: float) -> float:
        scaled = child[used] / temperature
        return float(binary_cross_entropy_with_logits(scaled, truth[used]))

    best = min((0.5 + 0.01 * step for step in range(951)), key=left)
    assert (best < 3.3) == benign_too
    found = calibrate(logits, labels, heads, hierarchy, parent_negative, "youden")
    assert found[1].temperature == pytest.approx(best, abs=0.02)
    reported = probabilities(logits, found, hierarchy)[used, 1].numpy()
    assert found[1].threshold == choose_threshold(truth[used].numpy() == 1, reported, "youden")
    if hierarchy != "max_constraint":  # there the parent reports its child's as well
        parent = logits[:, :1], labels[:, :1], heads[:1]
        both = calibrated_loss(logits, labels, heads, hierarchy, parent_negative)
        alone = calibrated_loss(*parent, hierarchy, parent_negative)
        share = 0.5 if hierarchy == "chain" else 1  # of all images, in one count
        assert both - alone == pytest.approx(share * left(best), abs=1e-4)


def test_a_max_constrained_parent_by_what_it_reports(heads: tuple[HeadSpec, ...]) -> None:
    # The loss credits a metastasis to its own head alone: of these lesions the malignancy logit
    # says nothing, and the reported probability is that of ALNM.
    malignancy, is_malignant = sampled(4000, 3.0)
    has_nodes = torch.zeros(4000)
    has_nodes[:1000] = is_malignant[:1000] = 1
    malignancy[:1000] = -10
    alnm = torch.where(has_nodes == 1, 6.0, -30.0)
    alnm[1000:1030] = 6.0  # so that ALNM does not separate
    logits, labels = torch.stack([malignancy, alnm], 1), torch.stack([is_malignant, has_nodes], 1)
    found = calibrate(logits, labels, heads, "max_constraint", "mask", "0.5")

    def loss(temperature: float) -> float:
        tried = [found[0].model_copy(update={"temperature": temperature}), found[1]]
        p = probabilities(logits, tried, "max_constraint")[:, 0]
        return float(torch.nn.functional.binary_cross_entropy(p, is_malignant.double()))

    best = min((0.5 + 0.01 * step for step in range(951)), key=loss)
    assert found[0].temperature == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("wanted", [0.9, 0.95])
def test_operating_points_on_the_reported_probability(
    heads: tuple[HeadSpec, ...], wanted: float
) -> None:
    malignancy, is_malignant = sampled(2000, 1.0)
    alnm, has_nodes = sampled(2000, 1.0, seed=1)
    logits, labels = torch.stack([malignancy, alnm], 1), torch.stack([is_malignant, has_nodes], 1)
    served = f"sensitivity_{wanted:.2f}"
    found = calibrate(logits, labels, heads, "chain", "mask", served)
    p = probabilities(logits, found, "chain").numpy()
    malignant = is_malignant.numpy() == 1
    rows = [malignant, malignant & (has_nodes.numpy() == 1)]
    for k, head in enumerate(found):
        assert set(head.operating_points) == {"0.5", "youden", "sensitivity_0.90", served}
        assert head.threshold == head.operating_points[served]
        assert wanted <= (p[rows[k], k] > head.threshold).mean() < wanted + 0.01


def test_what_validation_cannot_decide_is_kept_and_reported(
    heads: tuple[HeadSpec, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    logits = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, NAN]] * 30)
    malignancy, alnm = calibrate(logits, labels, heads, "independent", "mask", "youden")
    assert (malignancy.temperature, malignancy.threshold) == (1, 0.5)
    assert (alnm.temperature, alnm.threshold) == (1, 0.5)
    assert "youden" not in malignancy.operating_points
    said = capsys.readouterr().out
    kept = "temperature 1 is kept: {} labelled patients, 0 of the rarest label"
    assert f"head malignancy: {kept.format(30)}: too few" in said
    assert f"head alnm: {kept.format(0)}" in said
    assert "head malignancy: no youden threshold in the data" in said


def test_a_categorical_head_has_a_temperature_and_no_threshold() -> None:
    head = HeadSpec(name="s", target="s", labels=("a", "b", "c"))
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(4000, 3, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator).float()
    (found,) = calibrate(2.5 * honest, labels, [head], "independent", "mask", "youden")
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert found.operating_points == {}


def test_the_epoch_is_chosen_by_what_temperatures_leave(heads: tuple[HeadSpec, ...]) -> None:
    logits, labels = (torch.stack([it, it], 1) for it in sampled(2000, 1.0))
    labels[labels[:, 0] == 0, 1] = NAN  # no ALNM without malignancy
    labels[:40, 1] = 0  # nor one class only
    labels[:40, 0] = 1
    calm, loud, blind = (
        calibrated_loss(scale * logits, labels, heads, "chain", "mask") for scale in (1, 3, 0)
    )
    assert loud == pytest.approx(calm, rel=1e-3)
    assert calm < blind
    malignant = float(labels[:, 0].mean())  # an even guess for each, and of these another
    assert blind == pytest.approx((1 + malignant) * math.log(2))
    # Malignancy 1/2, whatever the temperature; ALNM of unknown malignancy speaks as well.
    even = torch.zeros(8, 2)
    rows = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, NAN], [NAN, 0.0]] * 2)
    found = calibrated_loss(even, rows, heads, "chain", "mask")
    assert found == pytest.approx((2 * math.log(4) + math.log(2) - math.log(1 - 1 / 4)) / 4)


def test_a_head_without_labels_has_no_loss(heads: tuple[HeadSpec, ...]) -> None:
    logits, labels = sampled(50, 1.0)
    logits_NL = torch.stack([torch.zeros(50), logits], 1)
    labels_NK = torch.stack([labels, torch.full((50,), NAN)], 1)
    loss = calibrated_loss(logits_NL, labels_NK, heads, "independent", "mask")
    assert loss == pytest.approx(math.log(2))


HEAD = HeadSpec(name="a", target="malignant", labels=("n", "y"))


def account(logits: torch.Tensor, labels: torch.Tensor, patients: list[str]) -> Calibrated:
    facts = ([HEAD], "independent", "mask", "0.5")
    return calibration.calibrate(logits[:, None], labels[:, None], *facts, patients, 0.9)


@pytest.mark.parametrize("size", [0.002, 1.0])
@pytest.mark.parametrize("kind", ["shifted", "falling", "constant"])
def test_where_no_temperature_is_best_it_is_1_and_the_account_says_so(
    kind: str, size: float, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = torch.tensor([0.0, 1.0] * 20)
    logits = {"shifted": labels + 25, "falling": 1 - 2 * labels, "constant": 0 * labels}[
        kind
    ] * size
    (head,), told = account(logits, labels, [str(row) for row in range(40)])
    assert (head.temperature, told["a"]["temperature"]) == (1, 1)
    assert (told["a"]["images"], told["a"]["patients"]) == (40, 40)
    rms = size * {"shifted": math.sqrt(650.5), "falling": 1, "constant": 0}[kind]
    why = "all logits are the same"
    if rms:
        why = (
            f"the cross entropy has no minimum between temperatures {rms / 100:.3g} and "
            f"{20 * rms:.3g}, as where logits are shifted or fall with the label"
        )
    assert told["a"]["why"] == why
    assert f"head a: temperature 1 is kept: {told['a']['why']}" in capsys.readouterr().out


def test_a_temperature_near_its_bound_is_within_it() -> None:
    # Scores that tell next to nothing: whatever is served was found between the bounds.
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.tensor([0.0] * 25 + [1.0] * 5)
        logits = 0.4 * labels - 0.2 + 3 * torch.randn(30, generator=generator)
        (head,), told = account(logits, labels, [str(row) for row in range(30)])
        assert head.temperature < 19.99 * logits.square().mean().sqrt()
        assert (head.temperature == 1) == told["a"]["why"].startswith("the cross entropy has no")


def of_one_size(size: float, wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of +-size for 40 patients, of which that many are on the wrong side."""
    labels = torch.tensor([0.0, 1.0] * 20)
    sign = 2 * labels - 1
    sign[:wrong] *= -1
    return size * sign, labels


@pytest.mark.parametrize("size", [0.002, 0.2, 1.0, 20.0])
@pytest.mark.parametrize("wrong", [0, 1, 8])
def test_a_temperature_by_hand(size: float, wrong: int) -> None:
    # 40 patients and one of unknown label: so many of the 41 speak for the score's side, and
    # sigmoid(size / T) says so at this T. Nobody on the wrong side is no special case.
    logits, labels = of_one_size(size, wrong)
    (head,), told = account(logits, labels, [str(row) for row in range(40)])
    right = 40 - wrong + 0.5
    assert head.temperature == pytest.approx(size / math.log(right / (41 - right)), rel=1e-3)
    share = right / 41
    left = -share * math.log(share) - (1 - share) * math.log(1 - share)
    at_1 = share * math.log1p(math.exp(-size)) + (1 - share) * math.log1p(math.exp(size))
    assert told["a"]["why"] == (
        f"cross entropy of smoothed labels {left:.4f}, and {at_1:.4f} with 1"
    )


def test_a_temperature_of_three_labels_by_hand() -> None:
    # 36 patients and one of unknown label, a third for each. Of the patients, 30 have a score of 1
    # for their own label, and 6 for the next one. What is added to all scores changes nothing.
    head = HeadSpec(name="a", target="s", labels=("x", "y", "z"))
    labels = torch.arange(36) % 3
    logits = 50 + torch.eye(3)[torch.where(torch.arange(36) < 6, (labels + 1) % 3, labels)]
    facts = ([head], "independent", "mask", "0.5", [str(row) for row in range(36)], 0.9)
    (found,), _ = calibration.calibrate(logits, labels[:, None].float(), *facts)
    right = (30 + 1 / 3) / 37  # = exp(1 / T) / (exp(1 / T) + 2)
    assert found.temperature == pytest.approx(1 / math.log(2 * right / (1 - right)), rel=1e-3)


def test_a_patient_of_many_images_counts_once() -> None:
    logits, labels = of_one_size(1.0, 4)
    patients = [str(row) for row in range(40)]
    (alone,), _ = account(logits, labels, patients)
    many = torch.cat([logits, logits[:1].repeat(200)]), torch.cat([labels, labels[:1].repeat(200)])
    (crowded,), told = account(*many, [*patients, *["0"] * 200])
    assert crowded.temperature == pytest.approx(alone.temperature)
    assert (told["a"]["images"], told["a"]["patients"]) == (240, 40)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_an_output_that_is_no_number_is_refused(wrong: float) -> None:
    logits, labels = sampled(200, 1.0)
    logits[[3, 8]] = wrong
    with pytest.raises(UserError, match="not a finite number for 2 of 200 images"):
        account(logits, labels, [str(row) for row in range(200)])
    loss = calibrated_loss(logits[:, None], labels[:, None], [HEAD], "independent", "mask")
    assert math.isnan(loss)


def test_the_loss_that_chooses_the_epoch_is_the_same_for_logits_of_any_size() -> None:
    labels = torch.tensor([0.0, 1.0] * 10)[:, None]
    sign = 2 * labels - 1
    facts = ([HEAD], "independent", "mask")
    # All right: what is left is the entropy of the smoothed label, of 20 patients 20.5 / 21.
    own = 20.5 / 21
    entropy = -own * math.log(own) - (1 - own) * math.log(1 - own)
    for size in (0.3, 4.0):
        assert calibrated_loss(size * sign, labels, *facts) == pytest.approx(entropy, abs=1e-5)
    off_by_one = sign.clone()
    off_by_one[0] *= -1
    losses = [calibrated_loss(size * off_by_one, labels, *facts) for size in (0.3, 4.0)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0] > entropy


def test_patients_carry_a_temperature_not_their_images() -> None:
    logits, labels = sampled(400, 3.0)
    for n, rows_each in ((400, 1), (20, 20)):
        patients = [str(row // rows_each) for row in range(400)]
        (head,), told = account(logits, labels, patients)
        assert told["a"]["patients"] == n
        if rows_each == 1:
            assert head.temperature == pytest.approx(3, rel=0.25)
            assert told["a"]["why"].startswith("cross entropy of smoothed labels 0.")
        else:
            assert head.temperature == 1
            assert "20 labelled patients, 20 of the rarest label" in told["a"]["why"]
    labels[:] = 0
    labels[:4] = 1
    _, told = account(logits, labels, [str(row) for row in range(400)])
    assert "400 labelled patients, 4 of the rarest label" in told["a"]["why"]


@pytest.mark.parametrize("size", [1.5, 4.0])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_forty_patients_cost_little(size: float, scale: float) -> None:
    """The mean cross entropy above the right temperature's, of 60 draws; in 400: .0125 and .0095.

    Platt's smoothing costs .0101 and .0210; temperature 1 where .1 is right .129 and .276.
    """
    generator = torch.Generator().manual_seed(999)
    costs = []

    def drawn(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        honest = size * torch.randn(n, generator=generator)
        return honest, honest.sigmoid()

    tested, chance = drawn(4000)
    best = binary_cross_entropy_with_logits(tested, chance)
    for _ in range(60):
        honest, p = drawn(40)
        (head,), _ = account(
            scale * honest,
            torch.bernoulli(p, generator=generator),
            [str(row) for row in range(40)],
        )
        left = binary_cross_entropy_with_logits(scale * tested / head.temperature, chance)
        costs.append(float(left - best))
    assert 0 < np.mean(costs) < 0.018


def test_score_histograms_count_what_is_served() -> None:
    heads = (
        HeadSpec(name="a", target="a", labels=("n", "y"), temperature=2.0),
        HeadSpec(name="b", target="b", labels=("x", "y", "z")),
    )
    # Head a: logits 0, 2, -20 at temperature 2 are 0.5, 0.731, 0.00005. Head b: one label at 1,
    # the others at 0, is e / (e + 2) = 0.576; all alike is 1/3.
    logits_NL = torch.tensor([[0.0, 1, 0, 0], [2.0, 0, 1, 0], [-20.0, 0, 0, 0]])
    found = score_histograms(logits_NL, heads, "independent")
    assert [n for n, count in enumerate(found["a"]) if count] == [0, 10, 14]
    assert {n: count for n, count in enumerate(found["b"]) if count} == {6: 1, 11: 2}
    assert {len(counts) for counts in found.values()} == {20}
