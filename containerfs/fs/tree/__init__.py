"""The tree that programs see: its nodes, what they show, and how a listing changes them."""
