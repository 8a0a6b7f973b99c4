"""Real servers, real kernels and a real network fault in a box, for the tests."""
