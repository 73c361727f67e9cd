//! The `vessel` binary. Everything lives in the library; see its documentation.

fn main() -> std::process::ExitCode {
    vessel::cli::main()
}
