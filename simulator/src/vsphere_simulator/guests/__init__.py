"""Virtual machines backed by real guests: containers that a command outside of this package makes."""
