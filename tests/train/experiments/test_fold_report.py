"""train/experiments/fold_report.py: what other rules would have kept, by hand."""

from pathlib import Path

import pandas as pd
import pytest

from train.experiments.fold_report import epochs_of


def test_a_rule_that_keeps_no_epoch_of_a_fold_has_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {}
    for fold, aucs in (("1", [0.75, 0.5]), ("2", [None, None]), ("3", [0.5, 1.0])):
        logs[fold] = tmp_path / f"{fold}.csv"
        log = {"epoch": [0, 1], "val_calibrated_loss": [0.25, 0.5], "val_auc/alnm/all": aucs}
        pd.DataFrame(log).to_csv(logs[fold], index=False)

    def told() -> list[list[str]]:
        epochs_of(logs, {"folds": {"alnm": {"on": "all"}}})
        lines = capsys.readouterr().out.splitlines()
        return [[it.strip() for it in line.split("│")[1:-1]] for line in lines if "│" in line]

    assert told() == [
        ["last (kept)", "2 2 2", "undefined"],
        ["lowest loss", "1 1 1", "undefined"],
        ["highest alnm AUC", "1 – 2", "undefined"],
    ]
    del logs["2"]
    assert told() == [
        ["last (kept)", "2 2", "0.750"],
        ["lowest loss", "1 1", "0.625"],
        ["highest alnm AUC", "1 2", "0.875"],
    ]
