//! Completion scripts and manual pages, made of the definition of the command line.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::Cli;

/// The script that makes a shell complete.
pub fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
    script
}

/// The manual page holdfast(1).
pub fn main_page() -> io::Result<Vec<u8>> {
    page(command())
}

/// Writes the pages of all commands into a directory, each with the name that `man` looks for.
pub fn all_pages(directory: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(named)?;
    write_pages(&command(), directory).map_err(named)
}

fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    command.get_subcommands().try_for_each(|inner| write_pages(inner, directory))?;
    fs::write(directory.join(format!("{}.1", page_name(command))), page(command.clone())?)
}

fn command() -> Command {
    // `holdfast help get` needs no page beside that of `holdfast get`.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let name = page_name(&command).to_owned();
    let extra = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let subcommands = command.has_subcommands();
    let source = concat!("holdfast ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).source(source).manual("Holdfast");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    let mut roff = extra_sections(&extra);
    if name != "holdfast" {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold("holdfast"), roman("(1), which has the exit codes")]);
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// What follows the options in the help. `clap_mangen` would fill its examples into paragraphs.
fn extra_sections(text: &str) -> Roff {
    let mut roff = Roff::default();
    let mut verbatim = false;
    for line in text.lines() {
        let example = line.strip_prefix("  ");
        if example.is_some() != verbatim {
            verbatim = !verbatim;
            roff.control(if verbatim { "nf" } else { "fi" }, []);
        }
        match (example, line.strip_suffix(':')) {
            (Some(example), _) => _ = roff.text([roman(example)]),
            (None, Some(title)) => _ = roff.control("SH", [title.to_uppercase().as_str()]),
            (None, None) if line.is_empty() => _ = roff.control("PP", []),
            (None, None) => _ = roff.text([roman(line)]),
        }
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}

#[cfg(test)]
mod tests;
