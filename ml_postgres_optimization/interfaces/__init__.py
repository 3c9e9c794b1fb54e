"""What a user meets: settings, command line, reports."""
