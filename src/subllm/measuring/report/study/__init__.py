"""Tables, plots and pages of a study."""
