"""The real PACS of the DICOM tests, here too."""

from tests.batch.dicom.conftest import orthanc, running, sockets_of_pynetdicom

__all__ = ["orthanc", "running", "sockets_of_pynetdicom"]
