"""Transfer of weights between networks and data sets."""
