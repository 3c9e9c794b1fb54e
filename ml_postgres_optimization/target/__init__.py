"""The server and its host: the only room, beside `workload`, that touches them."""
