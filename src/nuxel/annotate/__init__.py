"""Partly annotated images: what people drew, what a model proposes, and sets that hold both."""
