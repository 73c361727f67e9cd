//! What a process may do: capabilities, seccomp, AppArmor, SELinux, keyrings.

pub mod apparmor;
pub mod capabilities;
pub mod keyring;
pub mod seccomp;
pub mod selinux;
