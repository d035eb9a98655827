"""Price sources and the service that signs RedStone packages. May import core alone."""
