"""Neighbour graph and minibatches of neighbour pairs."""
