"""Small archives of generated pictures in the layouts of published data sets, one file a layout: never real data."""
