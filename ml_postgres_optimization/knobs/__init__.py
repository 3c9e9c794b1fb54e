"""What can be set: knobs, their catalogue, configurations and what they cost in memory."""
