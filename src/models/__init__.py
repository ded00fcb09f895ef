"""LeNet5 and CNN, and their common base class."""

from src.models.classifier import Classifier
from src.models.cnn import CNN
from src.models.lenet5 import LeNet5

__all__ = ["CNN", "Classifier", "LeNet5"]
