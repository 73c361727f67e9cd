//! The program inside the containers of the tests.

fn main() {}
