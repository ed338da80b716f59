"""The forward pass of a Llama decoder in C++, for CPUs: compiled where it runs, called through ctypes."""
