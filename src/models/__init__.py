"""The two networks of the comparison, over one shared base."""

from src.models.classifier import Classifier
from src.models.cnn import CNN
from src.models.lenet5 import LeNet5
from src.models.metrics import LossAndAccuracy

__all__ = ["CNN", "Classifier", "LeNet5", "LossAndAccuracy"]
