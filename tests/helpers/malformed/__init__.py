"""Malformed input for tests/fuzz: how cases are made, what reads them, and a process that watches each of them."""
