"""What runs inside TorchServe and inside the batch job: request -> image -> scores -> heat map.

Start at `service`, which drives rows through `stages`; `telemetry` writes the lines of
`request_log.log`, and the metrics. It travels in an archive, so it may import `model_def` and
nothing else of this project.
"""
