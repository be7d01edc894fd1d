//! The tests of the workspace, with the command that the README promises.

use anyhow::Result;

use crate::job::{Job, cargo};

/// The command line after `cargo`; the README gives the same one to its readers.
const TEST: &str = "test --workspace";

pub fn run(job: &mut Job) -> Result<()> {
    job.run_tests(cargo(TEST))
}

#[cfg(test)]
mod tests {
    use super::TEST;

    const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");

    /// The lines of fenced code blocks that begin with `cargo test`, without a prompt.
    fn test_commands(markdown: &str) -> Vec<&str> {
        let mut fenced = false;
        let mut commands = Vec::new();
        for line in markdown.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if fenced {
                let line = line.strip_prefix("$ ").unwrap_or(line).trim_end();
                commands.extend(line.starts_with("cargo test").then_some(line));
            }
        }
        commands
    }

    #[test]
    fn ci_runs_the_test_command_of_the_readme() {
        let readme = std::fs::read_to_string(README)
            .expect("README.md must be in the root and give the test command in a code block");
        assert_eq!(
            test_commands(&readme),
            [format!("cargo {TEST}")],
            "README.md must give exactly one test command, in a code block, and it must be CI's"
        );
    }

    #[test]
    fn only_commands_in_code_blocks_are_found() {
        let markdown = "cargo test --prose\n```sh\n$ cargo test --workspace\ncargo run\n```\ncargo test --more prose";
        assert_eq!(test_commands(markdown), ["cargo test --workspace"]);
    }
}
