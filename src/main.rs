//! The command `kagero`.

fn main() -> std::process::ExitCode {
    kagero::cli::main()
}
