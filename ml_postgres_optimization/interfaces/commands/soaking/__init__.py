"""The extended test's runs: begun, taken up again, listed, abandoned."""
