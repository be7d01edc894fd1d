//! The domain API of Holdfast: operations, routing, registries.
