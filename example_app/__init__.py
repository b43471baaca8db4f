"""An example: a classifier of handwritten digits, protected by flask-secure-ml."""
