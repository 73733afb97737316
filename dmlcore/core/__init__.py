"""Files, hashes, seeds and errors that every other package may use. Imports nothing else of dmlcore."""
