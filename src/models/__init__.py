"""The two networks of the comparison, over one shared base."""

from src.models.classifier import Classifier, LossAndAccuracy
from src.models.cnn import CNN
from src.models.lenet5 import LeNet5

__all__ = ["CNN", "Classifier", "LeNet5", "LossAndAccuracy"]
