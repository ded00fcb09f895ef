"""What trained networks do on test images, and what they cost."""
