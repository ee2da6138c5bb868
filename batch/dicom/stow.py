"""A PACS over DICOMweb: asked by QIDO-RS, stored to by STOW-RS (PS3.18)."""

from __future__ import annotations

import functools
import io
from contextlib import suppress

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from batch.dicom.connections import TIMEOUT_S, Identity, NoAnswer, Web, web_fault
from batch.dicom.destination import AlreadyThere, Instance, Refused
from sonode.console import UserError

_OPTION = "--to"
_NO_CHUNKS = 1 << 28  # a body in chunks cannot be sent again
_DUPLICATE = 0x0111  # PS3.18, I.2.2 and PS3.7, C.5.7
_NOBODYS = "2.25.1"  # a study UID that no study has


class Service:
    """A DICOMweb service as a `Destination`."""

    def __init__(self, web: Web, identity: Identity) -> None:
        self._web, self._session = web, identity.session()

    def has(self, it: Instance) -> bool:
        """Whether the PACS has an object; raises as `Destination` says."""
        try:
            found = self._client.search_for_instances(
                it.study, it.series, search_filters={"SOPInstanceUID": it.instance}
            )
        except requests.HTTPError as error:
            # Some answer so for a study that they do not have; that a service is there, is known.
            if error.response is not None and error.response.status_code == 404:
                return False
            raise web_fault(error, _OPTION) from None
        except requests.RequestException as error:
            raise web_fault(error, _OPTION) from None
        except ValueError as error:
            raise NoAnswer(type(error).__name__) from None
        values = [each.get("00080018", {}).get("Value", [None])[0] for each in found or ()]
        return it.instance in values  # a server may not know the filter

    def store(self, file: bytes) -> str | None:
        """Store an object; raises as `Destination` says."""
        dataset = pydicom.dcmread(io.BytesIO(file))
        try:
            answer = self._client.store_instances([dataset])
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            if status not in (400, 409, 413, 415, 422):
                raise web_fault(error, _OPTION) from None  # none would be taken
            with suppress(ValueError, TypeError, KeyError, AttributeError):  # no such answer
                _check_failures(Dataset.from_json(error.response.text))
            raise Refused(f"HTTP {status}") from None
        except requests.RequestException as error:
            raise web_fault(error, _OPTION) from None
        except ValueError as error:
            raise NoAnswer(type(error).__name__) from None
        if answer is not None:
            _check_failures(answer)
        return None

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    @functools.cached_property
    def _client(self) -> DICOMwebClient:
        """Asked once whether a DICOMweb service is there: afterwards 404 is about a study."""
        client = DICOMwebClient(
            self._web.url, session=self._session, chunk_size=_NO_CHUNKS, timeout=TIMEOUT_S
        )
        client.set_http_retry_params(retry=False)  # `push` knows when to send once more
        try:
            client.search_for_studies(search_filters={"StudyInstanceUID": _NOBODYS}, limit=1)
        except requests.RequestException as error:
            raise web_fault(error, _OPTION) from None
        except ValueError:  # a page of something else
            raise UserError(
                f"{_OPTION}: what answers there is not a DICOMweb service; check the URL"
            ) from None
        return client


def _check_failures(answer: Dataset) -> None:
    """Raise what an answer to STOW-RS says of its object."""
    failed = answer.get("FailedSOPSequence")
    if failed:
        reason = int(failed[0].get("FailureReason") or 0)
        if reason == _DUPLICATE:
            raise AlreadyThere
        raise Refused(f"failure reason {reason:#06x}")
