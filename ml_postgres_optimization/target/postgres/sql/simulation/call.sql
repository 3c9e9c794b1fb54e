CALL genesis_simulation.run(
    rows => %(rows)s, operations => %(operations)s, seed => %(seed)s, minutes => %(minutes)s,
    windows => %(windows)s, pace => %(pace)s, labels => %(labels)s
)
