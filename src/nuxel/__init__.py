"""nuxel finds every nucleus in a microscopy image and draws each one as its own instance."""

__version__ = "0.1.0"
