"""Bodies of requests: what becomes a field, and what is no form."""

import asyncio
from collections.abc import Sequence

import pytest

from archives.asgi.api import bodies

KIND = "multipart/form-data; boundary=B"


def form(*parts: str, end: str = "--B--\r\n") -> bytes:
    return "".join(f"--B\r\n{part}\r\n" for part in parts).encode() + end.encode()


def part(name: str, value: str, more: str = "") -> str:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}'


def test_a_form_becomes_its_fields_of_two_of_a_name_the_last() -> None:
    body = form(part("image", "a\r\nb", '; filename="x"'), part("roi", "1"), part("roi", "2"))
    assert bodies.fields(body, KIND) == {"image": b"a\r\nb", "roi": b"2"}
    assert bodies.fields(form(part("image", "")), KIND) == {"image": b""}
    for coding in ("utf-8", "latin-1"):
        named = form(part("image", "a", '; filename="Zoë.png"')).decode().encode(coding)
        assert bodies.fields(named, KIND) == {"image": b"a"}


@pytest.mark.parametrize(
    "kind", ["", "image/png", "application/json", "multipart/mixed; boundary=B"]
)
def test_anything_else_is_a_body(kind: str) -> None:
    assert bodies.fields(b"--B", kind) == {"body": b"--B"}


def test_a_form_in_gzip_has_no_fields_so_that_the_handler_refuses_it() -> None:
    assert bodies.fields(b"\x1f\x8b", KIND, "gzip") == {}
    assert bodies.fields(form(part("image", "a")), KIND, "identity") == {"image": b"a"}


WHOLE = form(part("image", "pixels"), part("roi", "1,2,3,4"))


@pytest.mark.parametrize("cut", range(len(WHOLE) - 2))
def test_a_form_that_is_not_whole_is_refused_wherever_it_ends(cut: int) -> None:
    # A form without its RoI would be another request: the whole frame.
    with pytest.raises(bodies.Malformed, match=r"^body: not a whole multipart form"):
        bodies.fields(WHOLE[:cut], KIND)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (WHOLE, "multipart/form-data"),
        (WHOLE, "multipart/form-data; boundary="),
        (WHOLE, "multipart/form-data; boundary=C"),
        (form(part("", "a")), KIND),
        (form("Content-Disposition: form-data\r\n\r\na"), KIND),
        (form("X: y\r\n\r\na"), KIND),
        (WHOLE + WHOLE, KIND),  # a part after the last boundary
        (form(*[part("a", "a")] * 101), KIND),
        (b"", KIND),
        (b"image=a&roi=1", "application/x-www-form-urlencoded"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(bodies.Malformed, match=r"^body: "):
        bodies.fields(body, kind)


def read(parts: Sequence[bytes], limit: int = 4, *, left: bool = False) -> bytes:
    messages = [{"type": "http.request", "body": it, "more_body": True} for it in parts]
    messages.append({"type": "http.disconnect"} if left else {"type": "http.request"})
    left_over = iter(messages)

    async def receive() -> dict[str, object]:
        return next(left_over)

    body = asyncio.run(bodies.read(receive, limit))
    assert not list(left_over)
    return body


def test_a_body_is_read_whole_up_to_its_limit() -> None:
    assert read([b"ab", b"", b"cd"]) == b"abcd"
    assert read([]) == b""
    with pytest.raises(bodies.TooLarge):
        read([b"ab", b"cde", b"f"])
    with pytest.raises(bodies.ClientLeft):
        read([b"ab"], left=True)
