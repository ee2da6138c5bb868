"""The network for TorchServe's stock handler, which takes one class without arguments."""

from torchvision.models.resnet import Bottleneck, ResNet


class ResNet50(ResNet):
    """Two outputs, as the archive under test."""

    def __init__(self):
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes=2)
