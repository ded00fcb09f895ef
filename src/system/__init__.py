"""The machine underneath: files, processes, memory, errors."""
