"""Table S2: the radiomics features that Boruta selects, and in how many of the repeats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sonode.console import counted
from train.paper.sections import Cell, Section, Table
from train.radiomics.command import RECORD
from train.repeats.variants import TASKS

FILE = "tables/table-s2.csv"
_SETS = {
    "93": "The 93 features of intensity and texture, without the 9 of shape. The paper says that "
    "shape was left out, yet counts 102, which is 93 and those 9; and the shape of a box is that "
    "of the box, not of the lesion.",
    "102": "The paper’s number, 102: the 93 features of intensity and texture, and 9 of shape, "
    "which are those of the box, not of the lesion.",
}


def selection_section(runs: Sequence[Path], absent: str | None, out: Path) -> Section:
    """What the repeats (`runs`: folders) selected for each task; `absent`: why there are none."""
    title = "S2: selected radiomics features"
    if not runs:
        return Section(title=title, text=[f"There is no radiomics model: {absent}."])
    records = [json.loads((run / RECORD).read_text()) for run in runs]
    text = [_SETS[records[0]["settings"]["feature_set"]]]
    chosen: dict[str, Counter[str]] = {}
    for head, task in TASKS.items():
        its = [record["heads"][head] for record in records if head in record["heads"]]
        if not its:
            text.append(f"{task.title}: no model, since training lacks labels of both classes.")
            continue
        chosen[head] = Counter(name for it in its for name in it["selected"] or ())
        if none := sum(it["selected"] is None for it in its):
            text.append(
                f"{task.title}: in {none} of {counted(len(its), 'repeat')} Boruta confirmed no "
                "feature, and the forest used all."
            )
    features = sorted(
        set().union(*chosen.values()),
        key=lambda name: (-sum(its[name] for its in chosen.values()), name),
    )
    table = pd.DataFrame(
        [[name, *(its[name] for its in chosen.values())] for name in features],
        columns=["feature", *chosen],
    )
    (out / FILE).parent.mkdir(exist_ok=True)
    table.assign(repeats=len(records)).to_csv(out / FILE, index=False)
    rows: list[list[Cell]] = [
        [str(row[0]).removeprefix("original_"), *(str(it) for it in row[1:])]
        for row in table.itertuples(index=False)
    ]
    if not rows:
        return Section(title=title, text=text)
    return Section(
        title=title,
        text=text,
        tables=[
            Table(
                caption=f"In how many of {counted(len(records), 'repeat')} Boruta confirmed a "
                "feature (pyradiomics’ names), most often first; a feature that is not listed "
                "was never confirmed.",
                columns=["Feature", *(TASKS[head].title for head in chosen)],
                rows=rows,
                file=FILE,
            )
        ],
    )
