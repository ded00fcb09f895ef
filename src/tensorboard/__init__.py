"""The TensorBoard logger, and a callback for what TensorBoard shows beside the curves."""
