"""What each command does, without its command line: every function takes a session and returns a result."""
