"""What a sweep would run and need: `dmlcore plan`."""
