"""Every promise in figures: `scripts/bench`. Each figure is a median, with the floor or the peer beside it."""
