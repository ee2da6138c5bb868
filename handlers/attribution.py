"""The heat map methods that a request may ask for."""

METHODS = ("gradcam",)
