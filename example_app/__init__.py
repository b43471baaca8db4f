"""An example: a classifier of handwritten digits, served safely by flask-secure-ml."""
