import pytest
from pydicom.dataset import Dataset

from sonode.dicom_device import device_name


@pytest.mark.parametrize(
    ("maker", "model", "name"),
    [
        ("Maker", " LOGIQ  700", "Maker LOGIQ 700"),
        ("", "L9", "L9"),
        (None, None, ""),
        ("GE\\Medical", "L9", "GE Medical L9"),  # two values, as pydicom reads it
        ("M" * 70, "L9", "M" * 64 + " L9"),
    ],
)
def test_a_device_is_its_maker_and_model(maker: str | None, model: str | None, name: str) -> None:
    header = Dataset()
    header.Manufacturer, header.ManufacturerModelName = maker, model
    assert device_name(header) == name


def test_a_maker_that_is_written_as_a_number_ends_nothing() -> None:
    header = Dataset()
    header.add_new("Manufacturer", "US", 7)
    assert device_name(header) == "7"
