"""Use of trained networks: predictions and exported files."""
