"""One frame's bytes -> its stored values, by the decoder of the transfer syntax.

Each decoder's work is bounded by the frame's bytes and its header's pixels: the frame's own header
is read first (`codestreams`), and what runs over bytes runs in C.
"""

from __future__ import annotations

import io
import struct
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from model_def.images.dicom.codestreams import Codestream, read_j2k, read_jpeg
from model_def.images.dicom.file import File
from model_def.images.dicom.frames import frame_bytes
from model_def.images.dicom.header import Header
from model_def.images.dicom.native import Values, native_frame, within
from model_def.images.errors import MissingDecoder, RowError, UnreadableImage, UnsupportedImage
from model_def.images.frame import check_jpeg


def decode_frame(
    file: File, header: Header, number: int, notes: list[str]
) -> tuple[Values, Codestream | None]:
    """The stored values of frame `number`, and a compressed frame's own header.

    Returns (rows, columns), or (rows, columns, 3) of colour in whatever space it is stored in, of
    `header.stored` bits; uint8, uint16, int8 or int16.

    Raises UnsupportedImage, MissingDecoder, ImageTooLarge, UnreadableImage: with the cause.
    """
    if not file.syntax.is_encapsulated:
        return within(native_frame(file, header, number, notes), header), None
    _check_decoder(file.syntax)
    table = file.dataset.get("ExtendedOffsetTable") or b""
    data = frame_bytes(file.body, number, header.frames, table, notes)
    if file.syntax == uid.RLELossless:
        return within(_rle(data, header), header), None
    is_j2k = file.syntax in uid.JPEG2000TransferSyntaxes
    data, stream = read_j2k(data) if is_j2k else (data, read_jpeg(data))
    stream.check(header)
    try:
        if stream.precision == 8 and stream.for_libjpeg:
            values = _jpeg(data, stream)
        else:
            values = _by_pydicom(data, file.syntax, header, stream)
    except RowError:
        raise
    except Exception:  # decoders raise many types on damaged bytes
        raise UnreadableImage(
            "image: the compressed frame is damaged or truncated; give the complete file"
        ) from None
    if header.signed:
        values = values.view(f"i{values.dtype.itemsize}")
    if stream.precision > header.stored and (within(values.copy(), header) != values).any():
        raise UnreadableImage(
            f"image: BitsStored is {header.stored}, the compressed frame has larger values; "
            "export it again"
        )
    return values, stream


def _rle(data: bytes, header: Header) -> Values:
    """PS3.5, annex G: a byte plane a segment, the most significant first; each is PackBits."""
    count, *offsets = struct.unpack("<16I", data[:64].ljust(64, b"\0"))
    edges = [*offsets[: min(count, 15)], len(data)]
    depth = header.allocated // 8
    rising = edges[0] >= 64 and all(a < b for a, b in pairwise(edges))
    if count != header.samples * depth or not rising:
        raise UnreadableImage(
            "image: RLE segments overlap, or their number is wrong; export it again"
        )
    pixels = header.rows * header.columns
    planes = [_unpacked(data[start:end], pixels) for start, end in pairwise(edges)]
    values = np.stack(planes).reshape(header.samples, depth, header.rows, header.columns)
    joined: Values = values[:, 0]
    if depth == 2:
        joined = joined.astype(np.uint16) << 8 | values[:, 1]
    stored = joined[0] if header.samples == 1 else np.moveaxis(joined, 0, -1)
    return stored.view(f"i{depth}") if header.signed else stored


def _unpacked(segment: bytes, pixels: int) -> npt.NDArray[np.uint8]:
    """Padding is dropped (files have it), but not as much again as the pixels.

    All as one row: Pillow ends a run at a row's end, where files exist that go on.
    """
    for width in (2 * pixels, pixels):
        try:
            plane = Image.frombytes("L", (width, 1), segment, "packbits", "L")
        except ValueError:  # there is less
            continue
        if width == pixels:
            unpacked: npt.NDArray[np.uint8] = np.asarray(plane)[0]
            return unpacked
        break
    raise UnreadableImage(
        "image: the RLE frame does not unpack to Rows x Columns pixels; export it again"
    )


def _check_decoder(syntax: uid.UID) -> None:
    """Refuse a transfer syntax without decoder, before anything is read.

    Raises:
        UnsupportedImage: no decoder exists.
        MissingDecoder: its package is not installed.
    """
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnsupportedImage(
            "image: unsupported transfer syntax, such as video; give it uncompressed"
        ) from None
    if not decoder.available_plugins:
        raise _missing(syntax)


def _missing(syntax: uid.UID) -> MissingDecoder:
    return MissingDecoder(
        f"image: {syntax.name} needs a package that is not installed; run "
        "pip install 'pylibjpeg[all]' or pip install python-gdcm, or give it uncompressed"
    )


def _jpeg(data: bytes, stream: Codestream) -> Values:
    """Samples of 8 bits as they are stored, in no other colour space."""
    check_jpeg(data)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if stream.samples == 3 and not stream.rgb_in_libjpeg:
            image.draft("YCbCr", image.size)
        return np.array(image)


def _by_pydicom(data: bytes, syntax: uid.UID, header: Header, stream: Codestream) -> Values:
    """By Pillow where it is JPEG 2000, so that further decoders on a machine change no number."""
    decoder = get_decoder(syntax)
    installed = set(decoder.available_plugins)
    if syntax == uid.JPEGExtended12Bit:
        installed -= {"pillow", "gdcm"}  # they decode 8 bits only
    if not installed:
        raise _missing(syntax)
    pillow = "pillow" in installed
    if pillow and header.samples == 3 and stream.precision > 8:
        raise UnsupportedImage(f"image: colour JPEG 2000 of {stream.precision} bits; give 8 bits")
    values, _ = decoder.as_array(
        encapsulate([data], has_bot=False),
        index=0,
        raw=True,
        decoding_plugin="pillow" if pillow else "",
        **{  # type: ignore[arg-type] # pydicom types the whole dict as each value
            "rows": header.rows,
            "columns": header.columns,
            "samples_per_pixel": header.samples,
            "photometric_interpretation": header.photometric,
            "number_of_frames": 1,
            "bits_allocated": header.allocated,
            "bits_stored": header.stored,
            "pixel_representation": int(header.signed),
            "planar_configuration": 0,  # the decoders' own
        },
    )
    return values
