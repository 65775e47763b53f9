"""Clusters on EC2."""
