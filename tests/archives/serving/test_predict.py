"""`sonode predict` as a person meets it: against a live server, against an archive, refused."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from archives.torchserve.server_node import ServerNode
from tests.command_line import sonode
from tests.servers import ONE_WORKER, SERVERS

ROI = "10,8,90,70"
LONG_NAME = f"http://{'a' * 64}.example"  # a label has 63 characters at most


def predict(*arguments: object, cwd: Path, token: str = "") -> subprocess.CompletedProcess[str]:
    return sonode("predict", *arguments, cwd=cwd, environment={"SONODE_TOKEN": token})


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, frame: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("images") / "Jane Doe.png"
    Image.fromarray(frame).save(path)
    return path


@pytest.fixture(scope="module")
def by_archive(
    archive_path: Path, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("by-archive")
    done = predict(
        *(image, "--roi", ROI, "--archive", archive_path, "--json", "--out", "maps"),
        *("--explain", "gradcam:alnm+grid"),
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    body: dict[str, Any] = json.loads(done.stdout)
    for key, size in (("png", (288, 292)), ("full_frame_png", (384, 320))):
        path = folder / body["heatmaps"]["alnm"][key]
        assert path.parent == folder / "maps"
        with Image.open(path) as picture:
            assert abs(np.subtract(picture.size, size)).max() <= 8
    return body


def test_an_archive_alone_is_enough(by_archive: dict[str, Any], image: Path) -> None:
    assert by_archive["image"] == str(image)
    assert set(by_archive["heads"]) == {"malignancy", "alnm"}
    assert set(by_archive["heatmaps"]) == {"alnm"}
    assert np.shape(by_archive["heatmaps"]["alnm"]["grid"]) == (2, 2)


@pytest.fixture(scope="module", params=SERVERS)
def node(
    request: pytest.FixtureRequest, archive_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerNode]:
    run_dir = tmp_path_factory.mktemp("node")
    models = {"tiny": archive_path.name}
    with request.param(archive_path.parent, models, run_dir, settings=ONE_WORKER) as started:
        yield started


@pytest.mark.live
def test_a_server_gives_the_same_and_a_table(
    node: ServerNode, image: Path, by_archive: dict[str, Any], tmp_path: Path
) -> None:
    common = (image, "--roi", ROI, "--url", node.inference_url, "--model", "tiny")
    done = predict(
        *(*common, "--key-file", node.key_file, "--explain", "gradcam:alnm"), cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    for head, score in by_archive["heads"].items():
        (line,) = [line for line in done.stdout.splitlines() if f" {head} " in line]
        assert f"{100 * score['probability']:.1f} %" in line
        assert score["label"] in line
        assert "above 50.0 %" in line
    assert f"sha256    {by_archive['model']['sha256']}" in done.stdout
    assert "tiny 1.0" in done.stdout
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["Jane Doe-gradcam-alnm-full_frame.png", "Jane Doe-gradcam-alnm.png"]
    assert all(name in done.stdout for name in names)

    by_token = predict(*common, "--json", cwd=tmp_path, token=node.token())
    body = json.loads(by_token.stdout)
    for head, score in body["heads"].items():
        assert score["probability"] == pytest.approx(
            by_archive["heads"][head]["probability"], abs=1e-5
        )
    whole = predict(
        *(image, image, "--url", node.inference_url, "--model", "tiny"),
        *("--key-file", node.key_file),
        cwd=tmp_path,
    )
    assert whole.stdout.count("warning   whole_frame") == 2


@pytest.mark.live
def test_what_a_server_refuses_is_reported_in_one_line(
    node: ServerNode, image: Path, tmp_path: Path
) -> None:
    here = ("--url", node.inference_url)
    known = (*here, "--model", "tiny", "--key-file", node.key_file)
    large = tmp_path / "large.dcm"
    large.write_bytes(bytes(2**25 + 1))
    said = [
        refused(predict(*arguments, cwd=tmp_path, token=token))
        for token, arguments in (
            ("", (image, *known, "--roi", "5,5,900,60")),
            ("", (image, *known, "--explain", "magic")),
            ("", (image, *here, "--model", "other", "--key-file", node.key_file)),
            ("wrong", (image, *here, "--model", "tiny")),
            ("", (large, *known)),
        )
    ]
    assert said[0].startswith("Jane Doe.png: 422 invalid_roi: roi: [5, 5, 900, 60] is empty or")
    assert said[1].startswith("Jane Doe.png: 400 malformed_request: explain: unknown method")
    assert "refused: it does not serve model other" in said[2]
    assert "the token is refused" in said[3]
    assert "large.dcm: 413 refused: " in said[4]
    assert "max_request_size" in said[4]
    assert list(tmp_path.iterdir()) == [large]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such.png"], "IMAGE no-such.png: No such file or directory"),
        *(
            (["{image}", "--url", url], f"--url {url}: not a server's address")
            for url in ("ftp://x", "http://127.0.0.1:abc", "http://127.0.0.1:70000", LONG_NAME)
        ),
        (["{image}"], "no token: runs/serve-8080/key_file.json cannot be read; give --key-file"),
        (["{image}", "--url", "http://gpu.test:8080"], "no token for gpu.test: set SONODE_TOKEN"),
        (["{image}", "--key-file", "{image}"], "not a key file of TorchServe"),
        (["{image}", "{image}", "--roi", ROI], "--roi: "),
        (
            ["{image}", "a/Jane Doe.png", "--url", "http://127.0.0.1:9", "--explain", "gradcam"],
            "IMAGE a/Jane Doe.png: its heat maps would have the same names as ",
        ),
        (["{image}", "--archive", "none.mar"], "ARCHIVE none.mar: no such file"),
        (["{image}", "--engine", "eager"], "--engine: needs --archive"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    image: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [argument.replace("{image}", str(image)) for argument in arguments]
    assert message in refused(predict(*given, cwd=tmp_path))


def test_the_engine_of_an_archive_is_the_one_named(
    image: Path, archive_path: Path, tmp_path: Path
) -> None:
    done = predict(*(image, "--archive", archive_path, "--engine", "abacus"), cwd=tmp_path)
    assert "its service does not start: setting engine: " in refused(done)


def test_nobody_there(image: Path, tmp_path: Path) -> None:
    done = predict(image, "--url", "http://127.0.0.1:9", cwd=tmp_path, token="x")
    assert refused(done).startswith("--url http://127.0.0.1:9: no server answers")
