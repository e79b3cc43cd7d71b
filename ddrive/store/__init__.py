"""Sets of feeds: the owner of a directory, views of it from other processes, and the calls between them."""
