"""The command `chimed`: one name for the commands of all packages."""
