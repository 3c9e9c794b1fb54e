"""What could be tried: drafts from the rules, remedies for symptoms, and which knobs matter here."""
