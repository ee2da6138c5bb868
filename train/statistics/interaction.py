"""Whether a model does alike in several groups: permutation tests, and Holm's adjustment.

Rows must be independent: give one row per patient. Shapes in names: N rows, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from train.statistics.binary import Bools, Floats

PERMUTATIONS = 1999
_ROUNDING = 1e-12


def shares_differ(event_N: Bools, group_N: npt.NDArray[np.int64], seed: int) -> float:
    """P-value of an event being equally frequent in all groups; groups are 0, 1, ...

    The statistic is the sum of n (share - share of all)^2, groups are permuted over the rows
    (Fisher's exact test, by simulation).
    """
    count_G = np.bincount(group_N)
    drawn_BN = np.random.default_rng(seed).permuted(np.tile(group_N, (PERMUTATIONS, 1)), axis=1)
    both_BN, own_N = np.vstack([group_N[None], drawn_BN]), event_N.astype(np.float64)
    share_BG = np.stack([(both_BN == g) @ own_N for g in range(len(count_G))], axis=1) / count_G
    apart_B = (count_G * (share_BG - own_N.mean()) ** 2).sum(axis=1)
    return _p_value(float(apart_B[0]), apart_B[1:])


def aucs_differ(
    truth_N: Bools, score_N: Floats, group_N: npt.NDArray[np.int64], seed: int
) -> float:
    """P-value of the scores of a class being alike in all groups, by how far the AUCs lie apart.

    Each group needs rows of both classes. Groups are permuted within the classes, so that their
    numbers stay; the statistic is the sum of w (AUC - weighted mean)^2 with w = n1 n0 / (n1 + n0),
    to which an AUC's variance is nearly inverse.
    """
    one_hot_NG = (group_N[:, None] == np.arange(group_N.max() + 1)).astype(np.float64)
    in_1G, in_0G = one_hot_NG[truth_N], one_hot_NG[~truth_N]
    pairs_G = in_1G.sum(axis=0) * in_0G.sum(axis=0)
    weight_G = pairs_G / one_hot_NG.sum(axis=0)
    gap_10 = score_N[truth_N][:, None] - score_N[~truth_N]
    above_10 = np.where(gap_10 > 0, 1.0, np.where(gap_10 == 0, 0.5, 0.0))

    def statistic(first_1G: Floats, second_0G: Floats) -> float:
        auc_G = ((above_10 @ second_0G) * first_1G).sum(axis=0) / pairs_G
        mean = np.average(auc_G, weights=weight_G)
        return float((weight_G * (auc_G - mean) ** 2).sum())

    generator = np.random.default_rng(seed)
    drawn = [
        statistic(generator.permutation(in_1G), generator.permutation(in_0G))
        for _ in range(PERMUTATIONS)
    ]
    return _p_value(statistic(in_1G, in_0G), np.array(drawn))


def _p_value(found: float, drawn: Floats) -> float:
    """One draw is added to both counts (Davison & Hinkley 1997, ch. 4)."""
    return float((1 + (drawn >= found - _ROUNDING).sum()) / (1 + len(drawn)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    times = np.arange(len(p_values), 0, -1) * np.asarray(p_values, float)[order]
    adjusted[order] = np.maximum.accumulate(times.clip(max=1))
    return [float(it) for it in adjusted]
