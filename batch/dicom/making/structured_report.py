"""The Comprehensive SR of a result: a measurement group a head (PS3.16, TID 1500 and 1410)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForRegion,
    TrackingIdentifier,
)
from highdicom.sr.enum import GraphicTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from batch.dicom.making import codes as own
from batch.dicom.making.identity import uid
from batch.dicom.making.result import HeadResult, Result
from batch.dicom.making.source import Source


def corners(roi: tuple[int, int, int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The outline of a RoI, closed: (5, 2) of column and row.

    0\\0 is the top left corner of the top left pixel (PS3.3, C.18.6.1.2 and C.10.5.1.2), so that
    a half-open box has its own numbers.
    """
    x0, y0, x1, y1 = roi
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], dtype=float)


def make(source: Source, result: Result, evidence: Dataset, **common: Any) -> Dataset:
    """The report; `common` are the series and instance that it is to have.

    `evidence` stands for the image: highdicom refers to it.
    """
    model = result.model
    device = DeviceObserverIdentifyingAttributes(
        uid=uid("device", model.sha256),
        name="sonode",
        manufacturer_name="sonode",
        model_name=model.name,
        serial_number=model.sha256,
    )
    observer = ObserverContext(CodedConcept.from_code(codes.DCM.Device), device)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.UltrasonographyOfBreast,
        imaging_measurements=[_group(source, result, name) for name in result.heads],
        title=codes.DCM.ImagingMeasurementReport,
    )
    # highdicom copies the content, walks it three times and throws the copy away: more than half of
    # what a report costs. One reference to the image is what it must find in there.
    (root,) = report
    _show_names(root)
    content = root.ContentSequence
    root.ContentSequence = [_image(source, result)]
    made: Dataset = ComprehensiveSR(
        evidence=[evidence],
        content=root,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[own.SCHEME],
        **common,
    )
    made.ContentSequence = content
    return made


def _show_names(container: Dataset) -> None:
    """Let viewers write the name beside each value: continuous content is values alone."""
    container.ContinuityOfContent = "SEPARATE"  # PS3.3, C.18.8
    for item in container.ContentSequence:
        if item.ValueType == "CONTAINER":
            _show_names(item)


def _image(source: Source, result: Result) -> SourceImageForRegion:
    frames = [(result.frame or 0) + 1] if source.is_multi_frame else None
    return SourceImageForRegion(source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, frames)


def _group(
    source: Source, result: Result, name: str
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    image = source.dataset
    where = (image.SOPInstanceUID, str(result.frame), str(result.roi))
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uid("tracking", *where, result.model.sha256, name), identifier=f"sonode {name}"
        ),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=corners(result.roi),
            source_image=_image(source, result),
        ),
        finding_type=own.head(name),
        algorithm_id=AlgorithmIdentification(
            name=result.model.name,
            version=result.model.version,
            parameters=[f"sha256={result.model.sha256}", f"engine={result.model.engine}"],
            manufacturer="sonode",
        ),
        measurements=list(_measurements(result, result.heads[name])),
        qualitative_evaluations=list(_evaluations(result, result.heads[name])),
    )


def _measurements(result: Result, head: HeadResult) -> Iterator[Measurement]:
    numbers = {own.probability(label): value for label, value in head.probabilities.items()}
    further = {own.THRESHOLD: head.threshold, own.LEVEL: head.level, own.DISTANCE: result.distance}
    further[own.ROI_CONFIDENCE] = result.roi_confidence
    for concept, value in [*numbers.items(), *further.items()]:
        if value is not None:
            yield Measurement(name=concept, value=round(value, 6), unit=own.NO_UNITS)


def _evaluations(result: Result, head: HeadResult) -> Iterator[QualitativeEvaluation]:
    yield QualitativeEvaluation(own.LABEL, own.label(head.label))
    if head.given is not None:
        yield QualitativeEvaluation(own.GIVEN, own.own(f"target:{head.given}", head.given))
    if head.uncertain is not None:
        yield QualitativeEvaluation(own.UNCERTAIN, own.yes_or_no(head.uncertain))
    if head.label_set is not None:
        for value in [own.label(text) for text in head.label_set] or [own.NO_LABEL]:
            yield QualitativeEvaluation(own.IN_LABEL_SET, value)
    if head.set_given is not None:
        given = own.own(f"target:{head.set_given}", head.set_given)
        yield QualitativeEvaluation(own.SET_GIVEN, given)
    if result.roi_confidence is not None:
        yield QualitativeEvaluation(own.PROPOSED, own.yes_or_no(True))
    yield QualitativeEvaluation(own.CONSISTENT, own.yes_or_no(result.consistent))
    if result.out_of_distribution is not None:
        answer = own.yes_or_no(result.out_of_distribution)
        yield QualitativeEvaluation(own.OUT_OF_DISTRIBUTION, answer)
    for warning in result.warnings:
        yield QualitativeEvaluation(own.WARNING, own.own(f"warning:{warning}", warning))
