"""A complete Containers API of our own: persistent, strict, and able to misbehave on request."""
