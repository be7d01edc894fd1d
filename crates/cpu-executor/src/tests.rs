//! The border as its users see it.
