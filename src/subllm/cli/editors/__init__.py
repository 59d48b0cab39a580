"""What editors and other clients are told about the server: a small file for each of them."""
