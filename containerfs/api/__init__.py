"""The Containers API as seen from here."""
