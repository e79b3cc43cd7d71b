"""Exchange of one feed's blocks with its peers: what to ask of whom, and what to answer."""
