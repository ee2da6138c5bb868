"""What runs inside TorchServe and inside the batch job: request -> image -> scores -> heat map."""
