//! Who this node is in a replication group.
