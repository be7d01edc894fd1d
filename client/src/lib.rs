//! Client library and command line of Holdfast.
