"""The commands of csgcnn, one module each."""
