"""What a training consists of."""
