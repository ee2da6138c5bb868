"""Build, inspect, load and serve archives (`.mar`), the unit in which a model travels."""
