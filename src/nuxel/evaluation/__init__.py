"""Predictions against the truth: files in, scores, comparison and report out."""
