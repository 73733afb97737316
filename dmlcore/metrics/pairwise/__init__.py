"""The engine of evaluate(): all pairs of embeddings, tile by tile, exactly and in bounded memory.

A sweep (`sweep.Sweep`) makes a few passes over the tiles of the similarity matrix; kernels are its compiled loops.
"""
