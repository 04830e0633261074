"""Open files: what programs read and write, and what is fetched ahead of them."""
