"""Files that are written, one module a format."""
