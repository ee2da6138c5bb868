"""`sonode predict`: images scored by a running TorchServe, or by an archive in this process."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from archives.packing.loader import load_archive
from sonode.certificate_fault import certificate_fault
from sonode.console import UserError, say, table
from sonode.defaults import INFERENCE_PORT

TOKEN = "SONODE_TOKEN"  # the environment variable; a token as an argument shows in process lists
TIMEOUT_S = 120.0
LOCAL = ("127.0.0.1", "localhost", "::1")
PICTURES = {"png": "", "full_frame_png": "-full_frame"}  # of a heat map, and how files are named

Fields = Mapping[str, str]
"""`roi`, `frame` and `explain` of a request, as text; see `handlers.requests`."""
Answer = tuple[int, dict[str, Any]]
Score = Callable[[bytes, Fields], Answer]
"""Image bytes and fields -> HTTP status and body (see `handlers.responses`)."""


@contextmanager
def server(url: str, model: str, key_file: Path | None) -> Iterator[Score]:
    """Score through a TorchServe that is running elsewhere.

    The token is that of `key_file`, or of SONODE_TOKEN, or, on this machine, of the key file that
    `sonode serve` writes for this port. Raises UserError where there is none, or nobody answers.
    """
    base = _address(url)
    # A proxy of the environment must not see calls to this machine.
    with httpx.Client(timeout=TIMEOUT_S, trust_env=base.host not in LOCAL) as client:

        def score(image: bytes, fields: Fields) -> Answer:
            # Read at each call: a renewal voids the token before.
            headers = {"Authorization": f"Bearer {_token(base, key_file)}"}
            try:
                answer = client.post(
                    f"{url.rstrip('/')}/predictions/{model}",
                    files={"image": ("image", image)},  # a file's name may be a patient's
                    data=dict(fields),
                    headers=headers,
                )
            except httpx.TimeoutException:
                raise UserError(f"--url {url}: no answer within {TIMEOUT_S:g} s") from None
            except httpx.TransportError as error:
                raise UserError(f"--url {url}: {_why_unreachable(error)}") from None
            return answer.status_code, _body(answer, model)

        yield score


def client_name(url: str, key_file: Path | None) -> str | None:
    """Whose token it is, says the gateway at `url`; None of a server that is no gateway.

    Raises UserError where nobody answers, or the token is refused.
    """
    base = _address(url)
    headers = {"Authorization": f"Bearer {_token(base, key_file)}"}
    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/client", headers=headers, trust_env=base.host not in LOCAL
        )
    except httpx.TransportError as error:
        raise UserError(f"--url {url}: {_why_unreachable(error)}") from None
    if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
        return None
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise UserError(f"--url {url}: the token is refused; set {TOKEN} to its present token")
    try:
        return str(answer.raise_for_status().json()["client"])
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
        raise UserError(f"--url {url}: does not say whose token it is; see its /health") from None


@contextmanager
def archive_of(path: Path, engine: str | None) -> Iterator[Score]:
    """Score by an archive in this process, under `engine` where one is named.

    Raises ArchiveError where it cannot.
    """
    with load_archive(path, {"engine": engine} if engine else {}) as loaded:

        def score(image: bytes, fields: Fields) -> Answer:
            (outcome,) = loaded.score([{"image": image, **fields}])
            return outcome

        yield score


def predict(
    images: Sequence[Path],
    fields: Fields,
    score: Score,
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Score images one after the other and show what comes; heat maps become files in `out`.

    Raises UserError for the first image that cannot be read or is refused, and at once where the
    heat maps of two would have one name.
    """
    if "explain" in fields:
        named: dict[str, Path] = {}
        for path in images:
            if (other := named.setdefault(path.stem, path)) is not path:
                raise UserError(
                    f"IMAGE {path}: its heat maps would have the same names as those of {other}; "
                    "explain them one by one, each with its own --out"
                )
    for path in images:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"IMAGE {path}: {error.strerror}") from None
        status, body = score(data, fields)
        if status != httpx.codes.OK:
            code = body.get("code", "no code")
            raise UserError(f"{path.name}: {status} {code}: {body.get('message', 'no message')}")
        _save(body["heatmaps"], path.stem, out)
        if as_json:
            say(json.dumps({"image": str(path), **body}))
        else:
            _show(path, body)


def _address(url: str) -> httpx.URL:
    """The URL, if a server can be there."""
    try:
        base = httpx.URL(url)
        base.raw_host.decode().encode("idna")  # as the socket will; its labels have limits
    except (httpx.InvalidURL, UnicodeError):
        base = httpx.URL()
    if base.scheme not in ("http", "https") or not base.host or not 0 < (base.port or 80) < 2**16:
        raise UserError(
            f"--url {url}: not a server's address; give, for example, "
            f"http://127.0.0.1:{INFERENCE_PORT}"
        )
    return base


def _why_unreachable(error: httpx.TransportError) -> str:
    remedy = "set SSL_CERT_FILE to the PEM file of who issued it"
    return certificate_fault(str(error), remedy) or (
        "no server answers; start one with `sonode serve`, or give --archive"
    )


def _token(base: httpx.URL, key_file: Path | None) -> str:
    if key_file is None and (token := os.environ.get(TOKEN)):
        return token
    if key_file is None and base.host not in LOCAL:  # this machine's is nobody else's business
        raise UserError(f"no token for {base.host}: set {TOKEN}, or give --key-file")
    path = key_file or Path("runs") / f"serve-{base.port or INFERENCE_PORT}" / "key_file.json"
    try:
        return str(json.loads(path.read_text())["inference"]["key"])
    except OSError:
        raise UserError(
            f"no token: {path} cannot be read; give --key-file (`sonode serve` says where it is) "
            f"or set {TOKEN}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--key-file {path}: not a key file of TorchServe") from None


def _body(answer: httpx.Response, model: str) -> dict[str, Any]:
    """The answer's JSON, with a remedy where TorchServe itself refuses."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE and body is None:
        limit = "the image is larger than the server's max_request_size; score it with --archive"
        return _refusal(answer, limit)
    if not isinstance(body, dict) or (answer.is_success and "heads" not in body):
        return _refusal(answer, "not a sonode server; check --url")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return _refusal(answer, f"it does not serve model {model}; choose another with --model")
    if answer.status_code == httpx.codes.UNAUTHORIZED or (
        "oken" in str(body.get("message")) and "stage" not in body
    ):
        return _refusal(answer, f"the token is refused; read it again (--key-file or {TOKEN})")
    return body


def _refusal(answer: httpx.Response, message: str) -> dict[str, Any]:
    if answer.is_success:
        raise UserError(f"--url {answer.url.copy_with(path='/')}: {message}")
    return {"code": "refused", "message": message}


def _save(heatmaps: dict[str, dict[str, Any]], stem: str, out: Path) -> None:
    """Write the pictures to OUT/STEM-METHOD-HEAD.png; a file's path takes each one's place."""
    for head, heatmap in heatmaps.items():
        for key, suffix in PICTURES.items():
            if key in heatmap:
                out.mkdir(parents=True, exist_ok=True)
                target = out / f"{stem}-{heatmap['method']}-{head}{suffix}.png"
                data = heatmap[key]
                target.write_bytes(data if isinstance(data, bytes) else base64.b64decode(data))
                heatmap[key] = str(target)


def _show(path: Path, body: Mapping[str, Any]) -> None:
    rows = []
    for head, score in body["heads"].items():
        threshold = score["threshold"]
        probability = f"{100 * score['probability']:.1f} %"
        if given := score["given"]:
            probability += f", given {given}"
        if (spread := score["spread"]) is not None:
            probability += f", members' SD {100 * spread:.1f} %"
        limit = "most probable" if threshold is None else f"above {100 * threshold:.1f} %"
        label = score["label"] + (", uncertain" if score["uncertain"] else "")
        rows.append((head, probability, label, limit))
        for label, probability in (score.get("distribution") or {}).items():
            rows.append(("", f"{100 * probability:.1f} %", f"  {label}", ""))
    table(path.name, ("head", "probability", "label", "threshold"), rows)
    model = body["model"]
    say(f"model     {model['name']} {model['version']}, {model['engine']}")
    say(f"sha256    {model['sha256']}")
    say(f"roi       {','.join(map(str, body['roi']))}")
    for warning in body["warnings"]:
        say(f"warning   {warning}")
    if not body["consistent"]:
        say("warning   inconsistent: a head is positive and its parent is not")
    for heatmap in body["heatmaps"].values():
        for key in PICTURES:
            if key in heatmap:
                say(f"heat map  {heatmap[key]}  ({heatmap['target']}, max {heatmap['max']:.3g})")
