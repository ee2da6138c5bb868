"""The SR, the Secondary Capture and the presentation state of real ultrasound files."""

import io
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")

from batch.dicom.making import objects, source
from batch.dicom.making.errors import CannotWrite
from model_def.images.decode import decode
from tests.batch.dicom import rendered, ultrasound
from tests.handlers import dicoms


def made(data: bytes, **changed: object) -> dict[str, Dataset]:
    read = source.read(data)
    result = ultrasound.result(**changed)
    files = objects.make(read, decode(data, result.frame).grey_HW, result)
    return {kind: pydicom.dcmread(io.BytesIO(file)) for kind, file in files.items()}


def items(container: Dataset, *names: str) -> list[Dataset]:
    """The content items below one whose concept has a meaning of `names`, at any depth."""
    found = []
    for item in container.get("ContentSequence", ()):
        if item.get("ConceptNameCodeSequence", [Dataset()])[0].get("CodeMeaning") in names:
            found.append(item)
        found += items(item, *names)
    return found


def meanings(found: list[Dataset]) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeMeaning for item in found]


@pytest.mark.parametrize("name", ultrasound.NAMES)
def test_every_object_is_valid_and_belongs_to_the_study(name: str, tmp_path: Path) -> None:
    data = ultrasound.data_of(name)
    original = pydicom.dcmread(io.BytesIO(data))
    frame = 7 if "NumberOfFrames" in original else None
    result = ultrasound.result(frame=frame)
    read = source.read(data)
    files = objects.make(read, decode(data, frame).grey_HW, result)
    assert list(files) == ["sr", "sc", "pr"]
    for kind, file in files.items():
        assert ultrasound.check(tmp_path / f"{kind}.dcm", file) == []
        it = pydicom.dcmread(io.BytesIO(file))
        assert it.StudyInstanceUID == original.StudyInstanceUID
        assert str(it.PatientName) == str(original.get("PatientName", ""))
        assert it.PatientID == original.get("PatientID", "")
        assert it.SeriesInstanceUID != original.SeriesInstanceUID
        assert UID(it.SOPInstanceUID).is_valid
        assert not [element for element in it if element.tag.is_private]
    assert b"2.25." in files["sr"]


def test_the_report_tells_all_that_the_result_says() -> None:
    report = made(ultrasound.data_of("examples_ybr_color.dcm"), frame=7)["sr"]
    groups = items(report, "Measurement Group")
    assert [meanings(items(group, "Finding")) for group in groups] == [
        ["malignancy"],
        ["alnm"],
        ["kind"],
    ]
    first, second, third = groups
    (number,) = items(first, "Probability of cancer")
    assert float(number.MeasuredValueSequence[0].NumericValue) == 0.832146
    (threshold,) = items(first, "Decision threshold")
    assert float(threshold.MeasuredValueSequence[0].NumericValue) == 0.41
    (level,) = items(second, "Level of the label set")
    assert float(level.MeasuredValueSequence[0].NumericValue) == 0.9
    assert meanings(items(first, "Label")) == ["Malignant"]
    assert meanings(items(first, "Uncertain")) == ["No"]
    assert meanings(items(second, "Uncertain")) == ["Yes"]
    assert meanings(items(second, "Label that the image may have")) == ["no ALNM", "ALNM"]
    assert meanings(items(second, "Probability holds given")) == ["malignant"]
    assert meanings(items(second, "Label set holds given")) == ["malignant"]
    assert meanings(items(first, "Warning")) == ["small_roi"]
    assert [
        float(items(third, f"Probability of {label}")[0].MeasuredValueSequence[0].NumericValue)
        for label in "abc"
    ] == [0.1, 0.2, 0.7]
    assert not items(third, "Decision threshold", "Uncertain", "Label that the image may have")
    assert {item.TextValue for item in items(first, "Algorithm Name")} == {"net"}
    assert {item.TextValue for item in items(first, "Algorithm Version")} == {"1.0"}
    parameters = {item.TextValue for item in items(first, "Algorithm Parameters")}
    assert parameters == {"sha256=" + "ab" * 32, "engine=eager"}
    uids = {items(group, "Tracking Unique Identifier")[0].UID for group in groups}
    assert len(uids) == 3
    (region,) = items(first, "Image Region")
    assert list(region.GraphicData) == [10, 20, 50, 20, 50, 45, 10, 45, 10, 20]
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedFrameNumber == 8  # counts from 1


def test_a_proposed_region_is_told_with_its_confidence() -> None:
    data = ultrasound.data_of("examples_palette.dcm")
    proposed, drawn = (made(data, roi_confidence=it) for it in (0.8712, None))
    for group in items(proposed["sr"], "Measurement Group"):
        (number,) = items(group, "Confidence of the proposed region")
        assert float(number.MeasuredValueSequence[0].NumericValue) == 0.8712
        assert meanings(items(group, "Region proposed by software")) == ["Yes"]
    names = ("Confidence of the proposed region", "Region proposed by software")
    assert not items(drawn["sr"], *names)
    text, other = (
        it["pr"].GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue
        for it in (proposed, drawn)
    )
    assert "proposed by software, confidence 0.87" in text
    assert "proposed" not in other


def test_the_presentation_state_draws_the_box_on_its_frame() -> None:
    data = ultrasound.data_of("examples_ybr_color.dcm")
    state = made(data, frame=7)["pr"]
    (annotation,) = state.GraphicAnnotationSequence
    (box,) = annotation.GraphicObjectSequence
    assert list(box.GraphicData) == [10, 20, 50, 20, 50, 45, 10, 45, 10, 20]
    assert annotation.ReferencedImageSequence[0].ReferencedFrameNumber == 8
    text = annotation.TextObjectSequence[0].UnformattedTextValue
    assert "RESEARCH USE ONLY" in text and "P(malignant) = 0.832" in text
    assert pydicom.uid.UID(state.SOPClassUID).name.startswith("Color Softcopy")


def test_a_grey_image_has_a_grayscale_state_with_its_window() -> None:
    data = (ultrasound.FILES / "CT_small.dcm").read_bytes()
    state = made(data, roi=(10, 10, 60, 60))["pr"]
    assert UID(state.SOPClassUID).name.startswith("Grayscale Softcopy")
    original = pydicom.dcmread(io.BytesIO(data))
    assert state.RescaleIntercept == original.RescaleIntercept


def test_a_grey_loop_has_a_grayscale_state_with_its_window(tmp_path: Path) -> None:
    loop = pydicom.dcmread(io.BytesIO(ultrasound.data_of("examples_ybr_color.dcm")))
    loop.PhotometricInterpretation, loop.SamplesPerPixel = "MONOCHROME2", 1
    del loop.PlanarConfiguration
    pixels = np.arange(2 * 60 * 80, dtype=np.uint8).tobytes()
    loop.Rows, loop.Columns, loop.NumberOfFrames, loop.PixelData = 60, 80, 2, pixels
    loop.WindowCenter, loop.WindowWidth = 100, 50
    loop.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    state = made(ultrasound.encoded(loop), frame=1)["pr"]
    assert UID(state.SOPClassUID).name.startswith("Grayscale Softcopy")
    assert state.SoftcopyVOILUTSequence[0].WindowCenter == 100
    assert ultrasound.check(tmp_path / "pr.dcm", ultrasound.encoded(state)) == []


def test_an_image_whose_low_values_are_bright_is_shown_as_it_was_scored(tmp_path: Path) -> None:
    """A state's output grows brighter, whatever the image (PS3.3, C.11.6.1)."""
    pixels = np.arange(60 * 80, dtype=np.uint8).reshape(60, 80)
    uids = {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}
    data = dicoms.write(dicoms.dataset(pixels, "MONOCHROME1", **uids))
    (tmp_path / "image.dcm").write_bytes(data)
    made(data)["pr"].save_as(tmp_path / "pr.dcm")
    shown, _, _ = rendered.state(tmp_path / "pr.dcm", tmp_path / "image.dcm")
    assert np.abs(np.asarray(shown).astype(int) - decode(data, None).grey_HW).max() <= 1


@pytest.mark.parametrize(
    ("roi", "text"),  # of 320 x 240 pixels
    [
        ((10, 20, 50, 45), (10, 45, 320, 240)),  # below
        ((10, 150, 50, 230), (10, 0, 320, 150)),  # above
        ((300, 20, 320, 45), (160, 45, 320, 240)),  # at the right edge
        ((0, 0, 320, 240), (0, 0, 320, 240)),  # of the whole frame
    ],
)
def test_the_text_of_the_state_has_room(roi: tuple[int, ...], text: tuple[int, ...]) -> None:
    state = made(ultrasound.data_of("examples_rgb_color.dcm"), roi=roi)["pr"]
    its = state.GraphicAnnotationSequence[0].TextObjectSequence[0]
    corners = (*its.BoundingBoxTopLeftHandCorner, *its.BoundingBoxBottomRightHandCorner)
    assert corners == text


def test_the_picture_has_the_box_where_the_roi_is() -> None:
    data = ultrasound.data_of("examples_rgb_color.dcm")
    picture = made(data)["sc"].pixel_array
    grey = decode(data, None).grey_HW
    rows, columns = grey.shape
    frame = picture[32 : 32 + rows, 8 : 8 + columns]
    outlined = np.argwhere((frame == (255, 210, 0)).all(axis=2))
    assert outlined.min(axis=0).tolist() == [20, 10]
    assert outlined.max(axis=0).tolist() == [44, 49]  # half-open
    outside = frame[:20, :, 0]
    assert np.array_equal(outside, grey[:20])


def test_another_time_makes_the_same_bytes() -> None:
    data = ultrasound.data_of("examples_rgb_color.dcm")
    read, frame = source.read(data), decode(data, None).grey_HW
    first = objects.make(read, frame, ultrasound.result())
    time.sleep(1.1)  # the clock of DICOM's times
    assert objects.make(source.read(data), frame, ultrasound.result()) == first


def test_another_image_box_frame_or_model_makes_other_objects() -> None:
    name = "examples_ybr_color.dcm"
    read, frame = source.read(ultrasound.data_of(name)), np.zeros((4, 5), np.uint8)
    moved = {"StudyInstanceUID": "1.2.3"}, {"SeriesInstanceUID": "1.2.3"}
    other = ultrasound.Model(name="net", version="1.0", sha256="cd" * 32, engine="eager")
    first = ultrasound.result(frame=0)
    made = [
        (read, frame, first),
        (read, frame, ultrasound.result(frame=1)),
        (read, frame, ultrasound.result(frame=0, roi=(10, 20, 50, 46))),
        (read, frame, ultrasound.result(frame=0, model=other)),
        (read, frame + 1, first),
        *((source.read(ultrasound.data_of(name, **it)), frame, first) for it in moved),
    ]
    uids = {it for each in made for it in objects.sop_instance_uids(*each).values()}
    assert len(uids) == 3 * len(made)
    explained = objects.sop_instance_uids(
        read, frame, ultrasound.result(frame=0, explain="gradcam")
    )
    assert explained["sc"] not in uids
    assert explained["sr"] in uids
    corrected = source.read(ultrasound.data_of(name, PatientID="other", PatientName="Other^One"))
    assert set(objects.sop_instance_uids(corrected, frame, first).values()) <= uids


def test_uids_stay_over_versions_unless_the_content_changes() -> None:
    """As they were made first, but for those that a change of their content renewed."""
    read = source.read(ultrasound.data_of("examples_ybr_color.dcm"))
    frame = np.zeros((4, 5), np.uint8)
    assert objects.sop_instance_uids(read, frame, ultrasound.result(frame=0)) == {
        "sr": "2.25.335306366435995029918440766812186455587",
        "sc": "2.25.214119536708033147632176806103194063634",
        "pr": "2.25.293269078459098881368345482802578188809",
    }


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        ("ISO_IR 100", "Müller^Ännchen"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_keep_their_letters(
    character_set: str | list[str], name: str, tmp_path: Path
) -> None:
    data = ultrasound.data_of(
        "examples_rgb_color.dcm", SpecificCharacterSet=character_set, PatientName=name
    )
    for kind, dataset in made(data).items():
        assert str(dataset.PatientName) == name
        assert ultrasound.check(tmp_path / f"{kind}.dcm", ultrasound.encoded(dataset)) == []


@pytest.mark.parametrize("declared", [b"          ", b"ISO_IR 6  ", b"ISO_IR 999"])
def test_letters_of_an_unknown_set_are_not_guessed(declared: bytes) -> None:
    data = ultrasound.data_of(
        "examples_rgb_color.dcm", SpecificCharacterSet="ISO_IR 100", PatientName="Müller"
    ).replace(b"ISO_IR 100", declared)
    with pytest.raises(CannotWrite, match="SpecificCharacterSet") as raised:
        source.read(data)
    assert "ller" not in str(raised.value)


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"StudyInstanceUID": None}, "uid_missing"),
        ({"SeriesInstanceUID": ""}, "uid_missing"),
        ({"SOPInstanceUID": "1.02.3"}, "uid_missing"),
    ],
)
def test_what_cannot_be_referred_to_is_named(elements: dict[str, object], code: str) -> None:
    data = ultrasound.data_of("examples_rgb_color.dcm", **elements)
    with pytest.raises(CannotWrite) as raised:
        source.read(data)
    assert raised.value.code == code
    assert next(iter(elements)) in str(raised.value)


@pytest.mark.parametrize(
    "elements",
    [
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6"},  # retired, as of pydicom-data's color-pl.dcm
        {"SOPClassUID": "1.3.46.670589.2.5.1.1"},  # a manufacturer's
        {"NumberOfFrames": 2},  # of a still image, as in pydicom-data's OBXXXX1A_2frame.dcm
    ],
)
def test_a_file_whose_kind_nothing_can_refer_to_is_named(elements: dict[str, object]) -> None:
    with pytest.raises(CannotWrite) as raised:
        source.read(ultrasound.data_of("examples_rgb_color.dcm", **elements))
    assert raised.value.code == "sop_class_unfit"


def test_dates_and_sexes_that_are_none_stay_empty(tmp_path: Path) -> None:
    data = ultrasound.data_of(
        "examples_rgb_color.dcm",
        StudyDate="1997.04.24",
        StudyTime="10:20:30",
        PatientBirthDate="unknown",
        PatientSex="W",
    )
    report = made(data)["sr"]
    assert (report.StudyDate, report.StudyTime) == ("19970424", "102030")
    assert (report.PatientBirthDate, report.PatientSex) == ("", "")


def test_times_are_of_the_zone_of_the_image() -> None:
    data = ultrasound.data_of("examples_rgb_color.dcm", TimezoneOffsetFromUTC="+0900")
    report = made(data)["sr"]
    assert (report.ContentDate, report.ContentTime) == ("20261127", "150000")
    assert report.TimezoneOffsetFromUTC == "+0900"


def test_labels_that_no_concept_holds_are_named() -> None:
    heads = {"malignancy": ("benign", "malignant"), "kind": ("x" * 50, "y" * 49)}
    assert objects.check_text(heads) == ["kind: " + "x" * 50]
