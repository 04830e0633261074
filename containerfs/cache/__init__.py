"""What the server said: metadata with a time to live, content on disk."""
