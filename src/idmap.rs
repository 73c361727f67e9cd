//! User namespaces' id mappings (config-linux.md, "User namespace mappings").
