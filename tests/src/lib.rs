//! Scripts, oracles and scenarios over the whole server.
