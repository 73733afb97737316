"""The figures of a study, drawn by matplotlib."""
