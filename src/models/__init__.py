"""LeNet5 and CNN, their common base class, and their metrics."""

from src.models.classifier import Classifier
from src.models.cnn import CNN
from src.models.lenet5 import LeNet5
from src.models.metrics import EpochMetrics

__all__ = ["CNN", "Classifier", "LeNet5", "EpochMetrics"]
