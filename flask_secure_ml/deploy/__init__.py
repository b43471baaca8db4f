"""What runs a protected app in production."""
