//! Commands about connections and about the whole server. They are declared in commands/ like all others; what they
//! do is here, a file per subject.

pub mod client;
mod client_list;
mod client_tracking;
pub mod command;
mod command_facts;
pub mod config;
pub mod connection;
pub mod debug;
mod function;
pub mod info;
pub mod keys;
mod latency;
pub mod memory;
pub mod monitor;
pub mod persistence;
mod populate;
pub mod pubsub;
mod script;
pub mod server;
pub mod slowlog;
pub mod subcommands;
mod syntax;

use damselfly_commands::{Args, CmdResult, CommandError, ServerCommand};
use damselfly_protocol::{Argv, ReplyWriter};

use crate::connection::{Connection, ConnectionId};
use crate::core::Core;
use crate::execute::Flow;
use crate::pubsub::Kind;
use crate::transaction;

/// What a command of this folder returns: how the connection goes on, or the error to answer.
pub type Outcome = Result<Flow, CommandError>;

/// Carries out a command.
pub fn run(core: &mut Core, id: ConnectionId, which: ServerCommand, argv: &Argv<'_>) -> Flow {
    let args = Args::behind_name(argv);
    let outcome = match which {
        ServerCommand::Auth => connection::auth(core, id, args),
        ServerCommand::BgSave => persistence::bgsave(core, id, args),
        ServerCommand::Client => client::client(core, id, args),
        ServerCommand::Command => command::command(core, id, args),
        ServerCommand::Config => config::config(core, id, args),
        ServerCommand::DbSize => keys::dbsize(core, id),
        ServerCommand::Discard => transaction::discard(core, id),
        ServerCommand::Exec => transaction::exec(core, id),
        ServerCommand::Multi => transaction::multi(core, id),
        ServerCommand::Unwatch => transaction::unwatch(core, id),
        ServerCommand::Watch => transaction::watch(core, id, args),
        ServerCommand::Debug => debug::debug(core, id, args),
        ServerCommand::Dfly => persistence::dfly(core, id, args),
        ServerCommand::Echo => connection::echo(core, id, args),
        ServerCommand::FlushAll => keys::flush(core, id, args, true),
        ServerCommand::Function => function::function(core, id, args),
        ServerCommand::FlushDb => keys::flush(core, id, args, false),
        ServerCommand::Hello => connection::hello(core, id, args),
        ServerCommand::Info => info::info(core, id, args),
        ServerCommand::Keys => keys::keys(core, id, args),
        ServerCommand::LastSave => persistence::lastsave(core, id),
        ServerCommand::Latency => latency::latency(core, id, args),
        ServerCommand::Lolwut => server::lolwut(core, id, args),
        ServerCommand::Memory => memory::memory(core, id, args),
        ServerCommand::Module => server::module(core, id, args),
        ServerCommand::Monitor => monitor::monitor(core, id),
        ServerCommand::PSubscribe => pubsub::subscribe(core, id, args, Kind::Pattern),
        ServerCommand::Publish => pubsub::publish(core, id, args, Kind::Channel),
        ServerCommand::PubSub => pubsub::pubsub(core, id, args),
        ServerCommand::PUnsubscribe => pubsub::unsubscribe(core, id, args, Kind::Pattern),
        ServerCommand::Ping => connection::ping(core, id, args),
        ServerCommand::Quit => connection::quit(core, id),
        ServerCommand::RandomKey => keys::random_key(core, id),
        ServerCommand::Reset => connection::reset(core, id),
        ServerCommand::Rm => keys::rm(core, id, args),
        ServerCommand::Role => server::role(core, id),
        ServerCommand::Save => persistence::save(core, id, args),
        ServerCommand::Scan => keys::scan(core, id, args),
        ServerCommand::Select => connection::select(core, id, args),
        ServerCommand::Script => script::script(core, id, args),
        ServerCommand::Shutdown => persistence::shutdown(core, id, args),
        ServerCommand::SPublish => pubsub::publish(core, id, args, Kind::Shard),
        ServerCommand::SSubscribe => pubsub::subscribe(core, id, args, Kind::Shard),
        ServerCommand::SUnsubscribe => pubsub::unsubscribe(core, id, args, Kind::Shard),
        ServerCommand::Subscribe => pubsub::subscribe(core, id, args, Kind::Channel),
        ServerCommand::Unsubscribe => pubsub::unsubscribe(core, id, args, Kind::Channel),
        ServerCommand::Slowlog => slowlog::slowlog(core, id, args),
        ServerCommand::SwapDb => keys::swap_db(core, id, args),
        ServerCommand::Time => server::time(core, id),
    };
    outcome.unwrap_or_else(|error| {
        core.stats.count_failed(
            damselfly_commands::lookup(&argv[0]).map(|found| subcommands::counter(found, argv)),
        );
        core.answer_error(id, &error.to_string());
        Flow::Next
    })
}

/// Writes a reply at once.
pub(crate) fn reply(core: &mut Core, id: ConnectionId, write: impl FnOnce(&mut ReplyWriter<'_>)) -> Outcome {
    if let Some(connection) = core.connection(id) {
        let proto = connection.proto;
        write(&mut ReplyWriter::new(&mut connection.output, proto));
    }
    Ok(Flow::Next)
}

/// The connection of a command, which is there because it has just sent it.
pub(crate) fn client_of(core: &mut Core, id: ConnectionId) -> Result<&mut Connection, CommandError> {
    core.connection(id).ok_or(CommandError::text("ERR the connection is closed"))
}

/// Makes the connection wait for [`Core::answer_with`].
pub(crate) fn wait(core: &mut Core, id: ConnectionId) -> Outcome {
    if let Some(connection) = core.connection(id) {
        connection.waiting = true;
    }
    Ok(Flow::Pause)
}

/// Answers HELP as Redis does: an array of lines.
pub(crate) fn help(core: &mut Core, id: ConnectionId, container: &str, lines: &[&str]) -> Outcome {
    reply(core, id, |out| {
        out.array(lines.len() + 3);
        out.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
        for line in lines {
            out.simple(line);
        }
        out.simple("HELP");
        out.simple("    Prints this help.");
    })
}

/// The error for a sub-command with a number of arguments that none of its forms has.
pub(crate) fn wrong_shape(container: &str, subcommand: &[u8]) -> CommandError {
    let subcommand = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]);
    CommandError::owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try {container} HELP."
    ))
}

/// An error unless there are exactly `n` arguments left for a sub-command.
pub(crate) fn exactly(args: &Args<'_>, n: usize, name: &str) -> CmdResult {
    if args.len() == n { Ok(()) } else { Err(CommandError::arity(name)) }
}
