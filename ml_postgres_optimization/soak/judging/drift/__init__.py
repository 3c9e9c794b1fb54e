"""Whether a figure has drifted, and which drift could have been seen."""
