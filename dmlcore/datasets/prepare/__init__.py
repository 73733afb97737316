"""Stage `preprocess`: split, encode and describe the images of a catalogue."""
