//! Namespaces: which are made and which are joined (config-linux.md, "Namespaces").
