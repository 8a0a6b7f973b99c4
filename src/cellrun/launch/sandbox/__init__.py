"""What holds code that nobody has read: the walls around a kernel, and the proof that they stand."""
