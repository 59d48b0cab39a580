"""Tables, pictures and pages of masks compared."""
