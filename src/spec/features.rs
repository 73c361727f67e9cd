//! What this runtime can do (features.md), from the tables that the code works by.
