//! The binary: logging, configuration, role, exit code.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use nodegauge::auth::Access;
use nodegauge::cli::{self, Command, Parsed};
use nodegauge::config::{AggregatorConfig, Config, StandaloneConfig};
use nodegauge::telemetry::logging;
use nodegauge::{agent, aggregator, check, memory, once, standalone, top};

/// Bad command line, environment or file: EX_USAGE of sysexits.
const USAGE: u8 = 64;

/// Cannot start, or not usable.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let (code, message) = match run() {
        Ok(code) => return code,
        Err(Stop::Usage(message)) => (USAGE, message),
        // The whole chain of causes, in one line.
        Err(Stop::Failed(error)) => (FAILED, format!("{error:#}")),
    };
    let message = message.replace(['\n', '\r'], " ");
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "nodegauge: {message}");
    ExitCode::from(code)
}

enum Stop {
    Usage(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Stop::Failed(error)
    }
}

fn run() -> Result<ExitCode, Stop> {
    let cli = match cli::parse(std::env::args_os()) {
        Parsed::Run(cli) => cli,
        Parsed::Print(text) => {
            print(|out| out.write_all(text.as_bytes()))?;
            return Ok(ExitCode::SUCCESS);
        }
        Parsed::Bad(message) => return Err(Stop::Usage(message)),
    };
    let usage = |error: anyhow::Error| Stop::Usage(format!("{error:#}"));
    let environment = |name: &str| std::env::var_os(name);
    if cli.is_aggregator() {
        let config = AggregatorConfig::load(cli.settings, &environment).map_err(usage)?;
        logging::init(config.log_level, config.log_format);
        let scheme = scheme(&config.access);
        aggregator::run(&config, |address| {
            announce(format_args!("nodegauge takes agents' pushes at {scheme}://{}/", reachable(address)))
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if matches!(cli.command, None | Some(Command::Standalone)) {
        let config = StandaloneConfig::load(cli.settings, &environment).map_err(usage)?;
        logging::init(config.agent.log_level, config.agent.log_format);
        config.agent.check_host_root()?;
        let (of_agent, of_aggregator) = (scheme(&config.agent.access), scheme(&config.aggregator.access));
        standalone::run(&config, |agent, aggregator| {
            let (agent, aggregator) = (reachable(agent), reachable(aggregator));
            announce(format_args!("nodegauge serves this machine's metrics: open {of_agent}://{agent}/"))?;
            announce(format_args!("and their last fifteen minutes: open {of_aggregator}://{aggregator}/"))
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Top(arguments)) = &cli.command {
        let config = Config::load_with(cli.settings, &environment, top::PACE).map_err(usage)?;
        let options = top::Options::read(arguments, &environment).map_err(usage)?;
        // Messages would be written across what is drawn.
        if !options.draws() || !io::stderr().is_terminal() {
            logging::init(config.log_level, config.log_format);
        }
        config.check_host_root()?;
        top::run(&config, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(cli.settings, &environment).map_err(usage)?;
    logging::init(config.log_level, config.log_format);
    for (flag, why) in &cli.notices {
        tracing::warn!(flag, why, "flag has no effect");
    }
    match cli.command {
        // Aggregator, standalone and top have other settings.
        None | Some(Command::Standalone | Command::Agent | Command::Aggregator | Command::Top(_)) => {
            config.check_host_root()?;
            if let Err(error) = memory::few_heaps() {
                tracing::debug!(%error, "started with the allocator as it is");
            }
            let scheme = scheme(&config.access);
            agent::run(&config, |address| {
                let address = reachable(address);
                announce(format_args!("nodegauge serves this machine's metrics: open {scheme}://{address}/"))
            })?;
        }
        Some(Command::Once { format }) => {
            config.check_host_root()?;
            print(|out| once::run(&config, format, out))?;
        }
        Some(Command::Check { families: true }) => print(check::families)?,
        Some(Command::Check { families: false }) => {
            let mut usable = false;
            print(|out| {
                usable = check::run(&config, out)?;
                anyhow::Ok(())
            })?;
            if !usable {
                return Ok(ExitCode::from(FAILED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    print(|out| writeln!(out, "{line}"))
}

fn scheme(access: &Access) -> &'static str {
    if access.tls.is_some() { "https" } else { "http" }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
fn print<E: Into<anyhow::Error>>(
    write: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'static>>) -> Result<(), E>,
) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = write(&mut out).map_err(Into::into).and_then(|()| Ok(out.flush()?));
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}

/// The address a browser on this machine takes.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
