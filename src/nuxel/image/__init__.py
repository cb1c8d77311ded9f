"""Images in: reading, finding, normalising and resampling them."""
