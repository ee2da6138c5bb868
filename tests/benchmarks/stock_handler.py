"""TorchServe's stock image handler around the same network: eager, as its documentation has it."""

import torch
from torchvision import transforms
from ts.torch_handler.vision_handler import VisionHandler


class StockHandler(VisionHandler):
    """The base does all but the input's size and the answer's shape."""

    image_processing = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def postprocess(self, data):
        """Probabilities of the two heads."""
        return torch.sigmoid(data).tolist()
