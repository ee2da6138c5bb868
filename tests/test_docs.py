"""README and pages are true: steps run as they stand; commands, links and files exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from archives.judging.rollout_policy import read_policy
from archives.nodes.nodes_file import read_nodes
from archives.torchserve.java import claim_ports
from batch.night import settings as night
from tests.command_line import ROOT, sonode

README = (ROOT / "README.md").read_text()
STEPS = (ROOT / "docs" / "get-started.md").read_text()
PAGES = README + "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


CODE = "".join(text for _, text in blocks(PAGES))


def run(command: list[str] | str, cwd: Path, *, ending: int = 0) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        shell=isinstance(command, str),
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ending, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.live
@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_the_steps_run_as_they_stand(short_path: Path) -> None:
    """Each step works on what those before it left; the demo's test runs most of these commands."""
    (short_path / "train").symlink_to(ROOT / "train")
    said = {}
    for language, text in blocks(STEPS):
        if language == "bash":
            continue  # for a reader alone: needs what is not there, or takes long
        if language == "python":
            run([sys.executable, "-c", text], short_path)
            continue
        for line in text.strip().splitlines():
            if line.startswith("sonode serve"):
                serve_and_call(line, short_path)
            else:
                said[line.split()[1]] = run(line, short_path)
    assert "verified    every byte" in said["inspect"]
    assert "failed                   0" in said["score"]
    scores = short_path / "work" / "scores"
    assert len(list(scores.glob("date=*/model=breast_us-1.0/part-*.parquet"))) == 1
    assert len(list(scores.glob("_runs/date=*/model=breast_us-1.0/run.json"))) == 1
    assert len(list((scores / "_heatmaps").glob("*.png"))) > 100


def serve_and_call(line: str, folder: Path) -> None:
    """`sonode serve` on free ports, the call that it prints, and Ctrl-C."""
    ports = claim_ports({"inference": None, "management": None, "metrics": None})
    options = " ".join(f"--{api}-port={port}" for api, port in ports.items())
    image = next((folder / "work" / "cohort" / "images").glob("*.png"))
    with subprocess.Popen(
        [sys.executable, "-m", *f"{line} {options}".split()],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            call = next(text for text in process.stdout if "curl" in text)
            answer = run(call.strip().replace("image.png", str(image)), folder)
            assert set(json.loads(answer)["heads"]) == {"malignancy", "alnm"}
        finally:
            process.terminate()
            rest = process.stdout.read()
    assert (process.returncode, rest.splitlines()[-1]) == (0, "stopped")


def test_the_readme_is_short_and_its_tour_is_of_the_steps() -> None:
    """Its output is real, so its commands must be those that run here."""
    assert len(README.splitlines()) <= 150
    tour = re.findall(r"^\$ (sonode .*)", README, re.M)
    assert len(tour) > 3
    assert [command for command in tour if command not in STEPS.splitlines()] == []


COMMANDS = sorted(set(re.findall(r"^sonode ([a-z-]+(?: [a-z]+\b(?= [A-Z]))?)", CODE, re.M)))


def test_they_show_every_command() -> None:
    assert {command.split()[0] for command in COMMANDS} == {
        *("phantom", "import", "describe", "train", "evaluate", "ablate", "margin"),
        *("external", "checklists", "radiomics", "versus", "paper"),
        *("pack", "inspect", "serve", "gateway", "gateway-token", "predict", "reader"),
        *("compare", "score", "dicom", "locate", "demo", "rollout"),
    }


def test_each_option_of_a_shown_command_exists() -> None:
    """Of training alone Lightning decides, and refuses what it does not know."""
    shown = re.sub(r"\\\n\s*", "", CODE)
    for line in re.findall(r"^(?:\$ )?sonode ((?!train).*)", shown, re.M):
        words = line.split("  #")[0].split()
        groups = ("import", "rollout", "dicom", "locate", "reader")
        command = words[: 2 if words[0] in groups and words[1][0].isalpha() else 1]
        done = sonode(*command, "--help")
        assert done.returncode == 0, line
        options = [word for word in words if word.startswith("--")]
        assert [it for it in options if not re.search(rf"{it}\b", done.stdout)] == [], line


def test_the_settings_files_of_the_pages_are_accepted(tmp_path: Path) -> None:
    """`nodes.yaml` and more, as a reader copies them; the bucket policy is JSON."""
    texts = {}
    for page in ("gateway", "rollout", "batch", "pacs"):
        for language, text in blocks((ROOT / "docs" / f"{page}.md").read_text()):
            if language in ("yaml", "json"):
                texts[page if language == "yaml" else "bucket"] = text
    (tmp_path / "nodes.yaml").write_text(texts["gateway"])
    (tmp_path / "policy.yaml").write_text(texts["rollout"])
    assert [node.name for node in read_nodes(tmp_path / "nodes.yaml")] == ["left"]
    assert read_policy(tmp_path / "policy.yaml").canary == (5, 25, 100)
    archive = tmp_path / "breast_us-1.0.mar"
    archive.touch()
    night_text = re.sub(r"archive: \S+", f"archive: {archive}", texts["pacs"])
    (tmp_path / "night.yaml").write_text(night_text)
    assert night.read(tmp_path / "night.yaml").days == 7
    assert json.loads(texts["bucket"])["Version"] == "2012-10-17"


def test_each_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", PAGES, re.M))
    assert {"demo", "test", "docs", "check", "fuzz", "bench", "soak", "kills", "rollouts"} <= named
    assert named <= targets


def test_pip_options_take_the_place_of_the_locked_files() -> None:
    """Hashes are of one build of torch: with another index the versions alone are asked for."""
    dry = ["make", "--dry-run", "--always-make", "demo"]
    (install,) = re.findall(r".* -m pip install .*", run([*dry, "PIP_OPTIONS=--index-url X"], ROOT))
    assert "--quiet --index-url X --constraint constraints.txt" in install
    assert "--require-hashes" not in install


def test_each_link_of_the_readme_and_each_file_that_a_page_names_exists() -> None:
    """`make docs` checks the links among the pages."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    files = re.findall(
        r"`((?:archives|batch|deploy|docs|handlers|model_def|sonode|tests|train)/[\w./@-]*)`",
        PAGES,
    )
    assert len(links) > 15
    assert len(files) > 20
    built = ("docs/_build/", "docs/reference/")
    missing = {name for name in (*links, *files) if not (ROOT / name).exists()}
    assert missing - {*built} == set()


def test_each_folder_says_where_to_start() -> None:
    for folder in ("sonode", "model_def", "handlers", "train", "archives", "batch"):
        for init in (ROOT / folder).rglob("__init__.py"):
            (names,) = re.findall(r"Start at ((?:`\w+`[ ,]*(?:and |or )?)+)", init.read_text())
            for name in re.findall(r"\w+(?=`)", names):
                there = [init.parent / name, init.parent / f"{name}.py"]
                assert any(it.exists() for it in there) or f"def {name}" in init.read_text(), init


def test_the_reference_is_of_the_code() -> None:
    """Each command whole, each code of a failed row, each column of the results."""
    sys.path.insert(0, str(ROOT / "docs"))
    import reference

    commands, codes, columns = reference.commands(), reference.codes(), reference.columns()
    assert "## `sonode score`" in commands
    assert "### `sonode rollout start`" in commands
    assert "**Commands**" not in commands  # a list whose lines are cut off
    assert "| 422 | `invalid_roi` | preprocess |" in codes
    assert "`object_missing`" in codes
    assert "| `HEAD_probability` | double |" in columns
