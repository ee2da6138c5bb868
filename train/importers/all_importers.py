"""From what others store to the one cohort format: every importer under one name."""

from train.importers.breast_lesions_usg import import_breast
from train.importers.bus_bra import import_bus_bra
from train.importers.busi import import_busi
from train.importers.dicom import import_dicom
from train.importers.table import import_csv, import_voc, import_yolo
from train.importers.values import mask_box

__all__ = [
    "import_breast",
    "import_bus_bra",
    "import_busi",
    "import_csv",
    "import_dicom",
    "import_voc",
    "import_yolo",
    "mask_box",
]
