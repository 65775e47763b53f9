"""The ssh cloud: machines that are simply there, in pools. One is leased, not made; ``down`` gives it back clean."""
