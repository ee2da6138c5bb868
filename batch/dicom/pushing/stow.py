"""A PACS over DICOMweb: asked by QIDO-RS, stored to by STOW-RS (PS3.18)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from batch.dicom.peers.address import Web
from batch.dicom.peers.answers import TIMEOUT_S, AlreadyThere, Instance, NoAnswer, Refused
from batch.dicom.peers.faults import web_fault
from batch.dicom.peers.identity import Identity
from batch.dicom.pushing import patient
from sonode.console import UserError

_NO_CHUNKS = 1 << 28  # a body in chunks cannot be sent again
_DUPLICATE = 0x0111  # PS3.18, I.2.2 and PS3.7, C.5.7
_NOBODYS = "2.25.1"  # a study UID that no study has


class Service:
    """A DICOMweb service as a `Destination`."""

    def __init__(self, web: Web, identity: Identity, option: str) -> None:
        """Take the service that an option gave, and whom sonode is there."""
        self._web, self._session, self._option = web, identity.session(), option

    def has(self, it: Instance) -> bool:
        """As `Destination` says."""
        filters = {"SOPInstanceUID": it.instance}
        found = self._found(
            lambda client: client.search_for_instances(it.study, it.series, search_filters=filters)
        )
        return any(each.get("SOPInstanceUID") == it.instance for each in found)

    def named(self, its: Sequence[Instance]) -> set[str]:
        """As `Destination` says."""
        filters = {"SOPInstanceUID": ",".join(it.instance for it in its)}
        found = self._found(
            lambda client: client.search_for_instances(its[0].study, search_filters=filters)
        )
        return {str(each.get("SOPInstanceUID")) for each in found}

    def tells(self) -> bool:
        """As `Destination` says."""
        return True

    def patients(self, study: str) -> list[Dataset]:
        """As `Destination` says."""
        filters = {"StudyInstanceUID": study}
        found = self._found(
            lambda client: client.search_for_studies(
                search_filters=filters, fields=list(patient.KEYWORDS)
            )
        )
        return [each for each in found if each.get("StudyInstanceUID") == study]

    def _found(self, search: Callable[[DICOMwebClient], Any]) -> list[Dataset]:
        """What is found; whoever takes it must look whether it is what was asked for.

        A service may not know a filter.
        """
        client = self._client
        try:
            return [Dataset.from_json(it) for it in search(client) or ()]
        except requests.HTTPError as error:
            # Some answer so for a study that they do not have; that a service is there, is known.
            if error.response is not None and error.response.status_code == 404:
                return []
            raise web_fault(error, self._option) from None
        except requests.RequestException as error:
            raise web_fault(error, self._option) from None
        except Exception as error:  # of many types, from the client and pydicom
            raise NoAnswer(type(error).__name__) from None

    def store(self, made: Dataset) -> str | None:
        """As `Destination` says."""
        try:
            answer = self._client.store_instances([made])
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            if status not in (400, 409, 413, 415, 422):
                raise web_fault(error, self._option) from None  # none would be taken
            with suppress(ValueError, TypeError, KeyError, AttributeError):  # no such answer
                _check_failures(Dataset.from_json(error.response.text))
            raise Refused(f"HTTP {status}") from None
        except requests.RequestException as error:
            raise web_fault(error, self._option) from None
        except ValueError as error:
            raise NoAnswer(type(error).__name__) from None
        if answer is not None:
            _check_failures(answer)
        return None

    def close(self) -> None:
        """As `Destination` says."""
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
            raise web_fault(error, self._option) from None
        except ValueError:  # a page of something else
            raise UserError(
                f"{self._option}: what answers there is not a DICOMweb service; check the URL"
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
