"""LeNet-5 against a plain CNN on MNIST, with PyTorch Lightning and TensorBoard."""
