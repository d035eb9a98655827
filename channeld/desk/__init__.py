"""What a trading desk does on top of a channel. May import core alone."""
