"""What a training leaves on disk, and how all others read it."""
