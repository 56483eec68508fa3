"""The HTTP front-end: `create_app` wires the routers; each router file is one resource."""
