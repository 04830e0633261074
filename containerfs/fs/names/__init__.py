"""Names, and where each listed object is shown: plain functions, which need no tree."""
