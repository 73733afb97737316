"""Data sets: verified raw files, a validated manifest beside packed pixels, splits, batches, transforms."""
