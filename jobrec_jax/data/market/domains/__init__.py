"""One module for each domain of the simulator: its vocabulary and its `DOMAIN`."""
