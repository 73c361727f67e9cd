//! What happens inside the new process, in order.
