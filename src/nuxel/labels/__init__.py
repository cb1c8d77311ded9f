"""Functions on label images."""
