"""What the server has: asked for when something is looked at, and brought into the tree."""
