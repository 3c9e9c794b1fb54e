"""Other tuners, behind one small interface: ask for parameters, tell what came of them."""
