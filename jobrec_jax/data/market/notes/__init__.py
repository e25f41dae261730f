"""The words of the market's first version, so that its worlds can be drawn again to the bit."""
