"""Small DICOM files with a patient's name and id filled in, of every kind that is taken."""

import io

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

SECRETS = ("Quixotte^Dulcinea", "MRN-77410932", "Hospital de la Mancha")
GREY = np.random.default_rng(5).integers(0, 256, (12, 16), dtype=np.uint8)
COLOUR = np.random.default_rng(6).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def dataset(
    pixels: np.ndarray, photometric: str, *, frames: int = 1, **elements: object
) -> Dataset:
    """A data set of (frames of) `pixels`, little endian; `elements` by keyword are added."""
    made = Dataset()
    made.SOPClassUID = uid.UltrasoundMultiFrameImageStorage
    made.SOPInstanceUID = "1.2.3.4"
    made.Modality = "US"
    made.PatientName, made.PatientID, made.InstitutionName = SECRETS
    made.add_new(0x00091001, "LO", SECRETS[1])  # vendors keep copies in private elements
    one = pixels if frames == 1 else pixels[0]
    made.SamplesPerPixel = 3 if one.ndim == 3 else 1
    made.PhotometricInterpretation = photometric
    if one.ndim == 3:
        made.PlanarConfiguration = 0
    if frames > 1:
        made.NumberOfFrames = frames
    made.Rows, made.Columns = one.shape[:2]
    made.BitsAllocated = made.BitsStored = one.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(one.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB" if one.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def write(made: Dataset, syntax: uid.UID = uid.ExplicitVRLittleEndian) -> bytes:
    """The file's bytes in a syntax that is not compressed, or is deflated."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    file = FileDataset("", made, preamble=bytes(128), file_meta=meta)
    if syntax == uid.ExplicitVRBigEndian and made.BitsAllocated == 16:
        swapped = np.frombuffer(made.PixelData, "<u2").astype(">u2")
        file["PixelData"].value = swapped.tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def compressed(made: Dataset, frames: list[bytes], syntax: uid.UID, *, table: bool = True) -> bytes:
    """The file's bytes with its pixel data replaced by encoded `frames`."""
    made.PixelData = encapsulate(frames, has_bot=table)
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return write(made, syntax)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """One frame as JPEG or JPEG2000."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def region(kind: int, data: int, *corners: int) -> Dataset:
    """An ultrasound region; corners x0, y0, x1, y1 are inclusive."""
    made = Dataset()
    made.RegionSpatialFormat, made.RegionDataType = kind, data
    names = ("MinX0", "MinY0", "MaxX1", "MaxY1")
    for name, corner in zip(names, corners, strict=True):
        setattr(made, f"RegionLocation{name}", corner)
    return made


def palette() -> dict[str, object]:
    """A palette of 256 colours in 16 bits: i, 255 - i, i x i mod 256, in both bytes."""
    index = np.arange(256, dtype=np.uint16)
    bands = {"Red": index, "Green": 255 - index, "Blue": index * index % 256}
    return {
        f"{name}PaletteColorLookupTable{part}": [256, 0, 16]
        if part == "Descriptor"
        else (band * 257).astype("<u2").tobytes()
        for name, band in bands.items()
        for part in ("Descriptor", "Data")
    }


def all_kinds() -> dict[str, bytes]:
    """One small file of each kind, by name."""
    loop = np.stack([GREY, 255 - GREY, GREY.T.reshape(12, 16)])
    regions = Sequence([region(1, 1, 2, 1, 13, 10), region(3, 3, 0, 0, 15, 11)])
    rle = dataset(COLOUR, "RGB")
    file = FileDataset("", rle, preamble=bytes(128), file_meta=FileMetaDataset())
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    file.compress(uid.RLELossless, generate_instance_uid=False)
    deep = GREY.astype(np.uint16) * 16
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 1500, "WindowWidth": 2000}
    jpeg = [encoded(frame, "JPEG", quality=95) for frame in loop]
    return {
        "grey": write(dataset(GREY, "MONOCHROME2", SequenceOfUltrasoundRegions=regions)),
        "implicit": write(dataset(GREY, "MONOCHROME1"), uid.ImplicitVRLittleEndian),
        "big endian": write(dataset(COLOUR, "RGB"), uid.ExplicitVRBigEndian),
        "deflated": write(dataset(GREY, "MONOCHROME2"), uid.DeflatedExplicitVRLittleEndian),
        "loop": write(dataset(loop, "MONOCHROME2", frames=3)),
        "window": write(dataset(deep, "MONOCHROME2", **window, RescaleSlope=1, RescaleIntercept=0)),
        "palette": write(dataset(GREY, "PALETTE COLOR", **palette())),
        "ybr": write(dataset(COLOUR, "YBR_FULL")),
        "rle": write(rle, uid.RLELossless),
        "jpeg loop": compressed(dataset(loop, "MONOCHROME2", frames=3), jpeg, uid.JPEGBaseline8Bit),
        "jpeg loop without table": compressed(
            dataset(loop, "MONOCHROME2", frames=3), jpeg, uid.JPEGBaseline8Bit, table=False
        ),
        "jpeg 2000": compressed(
            dataset(COLOUR, "YBR_RCT"), [encoded(COLOUR, "JPEG2000")], uid.JPEG2000Lossless
        ),
    }
