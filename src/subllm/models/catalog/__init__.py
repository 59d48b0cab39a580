"""What can be fetched: bases with their sources, and calibration sets."""
