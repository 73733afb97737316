"""Importers of published data sets: one file a data set, `raw/NAME` -> Catalogue."""
