"""The demo (to come)."""
