"""The ssh cloud: machines that are simply there, in pools. A machine is leased, not made; ``down`` gives it back clean."""
