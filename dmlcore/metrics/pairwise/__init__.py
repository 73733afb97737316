"""The engine of evaluate(): all pairs of embeddings, tile by tile, in bounded memory."""
