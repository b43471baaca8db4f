"""Running a protected app in production."""
