"""The closing summary: the lines it prints."""

from src.training.callbacks import describe_result


def test_result_is_told_as_percentage_and_errors() -> None:
    line = describe_result("LeNet5", "test", {"accuracy": 0.9923, "errors": 77, "images": 10_000, "loss": 0.03641})
    assert line == "LeNet5: test accuracy 99.23% (77 errors in 10,000 images), loss 0.0364"
