"""What the server has not got yet: the journal, and the worker that sends it."""
