"""Machines that are reached over SSH: what is done on them, and how an agent gets there. Clouds bring the addresses."""
