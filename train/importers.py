"""From what others store to the one cohort format: every importer under one name."""

from train.import_breast import import_breast
from train.import_bus_bra import import_bus_bra
from train.import_busi import import_busi
from train.import_table import import_csv, import_voc, import_yolo
from train.import_values import mask_box

__all__ = [
    "import_breast",
    "import_bus_bra",
    "import_busi",
    "import_csv",
    "import_voc",
    "import_yolo",
    "mask_box",
]
