"""Directory entries: made, removed and renamed, as one step of tree, journal and server."""
