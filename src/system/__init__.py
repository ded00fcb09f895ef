"""Files, processes, memory, hardware and errors."""
