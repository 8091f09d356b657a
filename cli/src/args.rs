//! What can be typed after `headwater`.

use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// A live-streaming cluster in one binary.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "First time here?   headwater demo\n\
                  A node by itself:  headwater serve\n\
                  Exit codes: 0 done, 1 failed while running, 2 wrong arguments or configuration."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node. Without configuration: manager, origin and edge in one
    #[command(after_help = "Examples:\n  \
        headwater serve\n  \
        headwater serve --roles manager --set cluster.key=SECRET\n  \
        headwater serve --roles edge --manager 10.0.0.5 --set cluster.key=SECRET\n\n\
        Any key of `headwater config` can be given by --set or in the environment (http.port is HEADWATER_HTTP_PORT).\n\
        A flag beats --set, --set beats the environment, the environment beats the file.\n\
        SIGTERM or Ctrl-C lets sessions finish; a second one ends at once.")]
    Serve(Serve),
    /// Run a whole cluster in this process, with a clip playing through it
    #[command(after_help = "SIGTERM or Ctrl-C ends it.")]
    Demo(Demo),
    /// Print the whole configuration with its defaults, or check a file
    Config(Config),
    /// Ask a running node
    Ctl(Ctl),
}

/// `headwater serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// What this node does: any mix of manager, origin and edge, with commas between [default: all three]
    #[arg(long, value_name = "ROLES")]
    pub(crate) roles: Option<String>,
    /// The manager to register with, where that is another node (port 5090 if left out)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) manager: Option<String>,
    /// The IP address for all listeners [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bind: Option<String>,
    /// A TOML file; `headwater config` prints one to start from
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set any key of the configuration; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `headwater demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The IP address for all listeners; 127.0.0.1 keeps the demo to this host
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub(crate) bind: IpAddr,
    /// Add this to every port, where the usual ones are taken
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// Set a key of the configuration for all three nodes, such as log.level=debug; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `headwater config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// What to do instead of printing.
    #[command(subcommand)]
    pub(crate) command: Option<ConfigCommand>,
}

/// What else `headwater config` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with a file, by line and key
    Check {
        /// The file
        file: PathBuf,
    },
}

/// `headwater ctl`.
#[derive(Debug, Args)]
pub(crate) struct Ctl {
    /// The node to ask
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:5080")]
    pub(crate) url: String,
    /// Print the node's JSON instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to ask.
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

/// What a node can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// List the nodes that this one knows
    Nodes,
    /// List the streams
    Streams,
    /// List publishers and viewers
    Sessions,
    /// End a session (only from the node's own host)
    Kick {
        /// Its id, as `sessions` lists it, such as rtmp-12
        session: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_reach_their_place() {
        let cli = Cli::try_parse_from([
            "headwater",
            "serve",
            "--roles",
            "origin,edge",
            "--set",
            "a=1",
            "--set",
            "b=2",
        ]);
        let Command::Serve(serve) = cli.unwrap().command else { panic!("no serve") };
        assert_eq!(serve.roles.as_deref(), Some("origin,edge"));
        assert_eq!(serve.set, ["a=1", "b=2"]);
        let cli =
            Cli::try_parse_from(["headwater", "ctl", "streams", "--json", "--url", "http://h"]).unwrap();
        let Command::Ctl(ctl) = cli.command else { panic!("no ctl") };
        assert!(ctl.json && ctl.url == "http://h");
    }

    #[test]
    fn wrong_arguments_are_exit_code_2() {
        for line in [
            &["headwater", "serve", "--rolls", "x"][..],
            &["headwater", "demo", "--bind", "x"],
            &["headwater", "x"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
        assert_eq!(Cli::try_parse_from(["headwater", "--help"]).unwrap_err().exit_code(), 0);
    }
}
