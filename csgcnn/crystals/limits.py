"""Limits on structures, which keep reading and connecting them within seconds."""

# Reading and connecting a larger crystal would take minutes.
MAX_SITES = 100_000
# Fractional coordinates beyond this have lost the digits that place an atom within its cell.
MAX_FRAC_COORD = 1e6
