"""Use of trained networks."""

from src.inference.networks import TrainedNetwork, import_network, imported_network
from src.inference.predictions import predict

__all__ = ["TrainedNetwork", "import_network", "imported_network", "predict"]
