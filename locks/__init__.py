"""The environments: lock files, and what installs them."""
