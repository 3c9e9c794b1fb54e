"""What tunes a server while it serves: optimise, advise, go back."""
