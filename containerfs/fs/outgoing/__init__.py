"""What the server has not got: changed files are sent, and each one's last content wins."""
