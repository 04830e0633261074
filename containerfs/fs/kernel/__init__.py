"""The kernel: how it asks, by which numbers, and what it has cached."""
