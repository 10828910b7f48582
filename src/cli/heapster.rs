//! Heapster's flags that are none of ours: accepted so that command lines people
//! have work as they stand. What they come to is decided in [`crate::config`].
//!
//! They have no environment names, since Kubernetes sets some of these itself, and
//! no place in the file. Those of ours that Heapster had too are not here.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// What a flag is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// A value.
    Value,
    /// Nothing, or `=true`, `=false`.
    Switch,
}

/// One of Heapster's flags.
#[derive(Debug, Clone, Copy)]
struct Flag {
    name: &'static str,
    takes: Takes,
    /// Why it means nothing here; empty for one that does.
    void: &'static str,
}

const fn value(name: &'static str) -> Flag {
    Flag { name, takes: Takes::Value, void: "" }
}

const fn void(name: &'static str, void: &'static str) -> Flag {
    Flag { name, takes: Takes::Value, void }
}

impl Flag {
    const fn switch(self) -> Flag {
        Flag { takes: Takes::Switch, ..self }
    }
}

const LOGGING: &str = "messages go to standard error; see --log-level and --log-format";
const API_SERVER: &str =
    "metrics.k8s.io is answered at the port of --listen, with --tls-cert and --auth kubernetes";
const BEFORE_1_0: &str = "Heapster itself dropped it with 1.0; see --metric-resolution";

/// All of them, those that mean something first.
const FLAGS: &[Flag] = &[
    value("heapster-port"),
    value("port"),
    value("listen-ip"),
    value("allowed-users"),
    value("label-separator"),
    value("label-seperator"),
    value("store-label"),
    value("ignore-label"),
    value("disable-export").switch(),
    value("v"),
    void("max-procs", "as many threads are used as there are processors"),
    void("historical-source", "history is in the database that a sink writes; ask it"),
    void("vmodule", LOGGING),
    void("logtostderr", LOGGING).switch(),
    void("alsologtostderr", LOGGING).switch(),
    void("log-dir", LOGGING),
    void("log-flush-frequency", LOGGING),
    void("stderrthreshold", LOGGING),
    void("log-backtrace-at", LOGGING),
    void("api-server", API_SERVER).switch(),
    void("secure-port", API_SERVER),
    void("bind-address", API_SERVER),
    void("cert-dir", API_SERVER),
    void("tls-cert-file", API_SERVER),
    void("tls-private-key-file", API_SERVER),
    void("tls-ca-file", API_SERVER),
    void("tls-sni-cert-key", API_SERVER),
    void("authentication-kubeconfig", API_SERVER),
    void("authentication-skip-lookup", API_SERVER).switch(),
    void("authentication-token-webhook-cache-ttl", API_SERVER),
    void("authorization-kubeconfig", API_SERVER),
    void("authorization-webhook-cache-authorized-ttl", API_SERVER),
    void("authorization-webhook-cache-unauthorized-ttl", API_SERVER),
    void("profiling", "there is no profiler").switch(),
    void("contention-profiling", "there is no profiler").switch(),
    void("enable-swagger-ui", "there is no such page").switch(),
    void("stats-resolution", BEFORE_1_0),
    void("sink-frequency", BEFORE_1_0),
    void("cache-duration", BEFORE_1_0),
    void("use-model", BEFORE_1_0).switch(),
    void("model-resolution", BEFORE_1_0),
    void("model-frequency", BEFORE_1_0),
    void("poll-duration", BEFORE_1_0),
];

/// What was given of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Whether the program was started as Heapster was: without a command.
    pub in_its_place: bool,
    /// Name and values of each, in the order of the table.
    flags: Vec<(&'static str, Vec<String>)>,
}

impl Given {
    /// The values of a flag; the value of a switch alone is `true`.
    pub fn all(&self, name: &str) -> &[String] {
        self.flags.iter().find(|(given, _)| *given == name).map_or(&[], |(_, values)| values)
    }

    /// The value of a flag: of several the last, as with Heapster.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }

    /// The first one given.
    pub fn any(&self) -> Option<&'static str> {
        self.flags.first().map(|(name, _)| *name)
    }

    /// What was given that means nothing here, and why, one line each.
    pub fn notices(&self) -> Vec<String> {
        let void = |name: &str| FLAGS.iter().find(|f| f.name == name).map_or("", |f| f.void);
        let told = self.flags.iter().map(|(name, _)| (name, void(name))).filter(|(_, why)| !why.is_empty());
        told.map(|(name, why)| format!("--{name} is accepted and means nothing here: {why}")).collect()
    }
}

/// Adds those flags that the command has not got by itself.
pub(super) fn add(command: Command) -> Command {
    let known: Vec<String> =
        command.get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect();
    let new = FLAGS.iter().filter(|flag| !known.iter().any(|known| known == flag.name));
    command.args(new.map(|flag| {
        let arg = Arg::new(flag.name).long(flag.name).global(true).hide(true).action(ArgAction::Append);
        match flag.takes {
            Takes::Value => arg.num_args(1),
            Takes::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        }
    }))
}

/// What is given of them in what was read.
pub(super) fn read(matches: &ArgMatches, in_its_place: bool) -> Given {
    let values = |flag: &Flag| {
        let values = matches.try_get_many::<String>(flag.name).ok().flatten()?;
        Some((flag.name, values.cloned().collect()))
    };
    Given { in_its_place, flags: FLAGS.iter().filter_map(values).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Parsed, parse};

    fn given(words: &[&str]) -> Given {
        match parse(std::iter::once("nodegauge").chain(words.iter().copied())) {
            Parsed::Run(cli) => cli.settings.heapster,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn every_flag_is_accepted_in_both_spellings() {
        for flag in FLAGS {
            for name in [flag.name.to_owned(), flag.name.replace('-', "_")] {
                let word = format!("--{name}=true");
                let given = given(&["--source=push", &word]);
                assert_eq!(given.last(flag.name), Some("true"), "{word}");
                assert_eq!(given.notices().len(), usize::from(!flag.void.is_empty()), "{word}");
            }
        }
    }

    #[test]
    fn switches_need_no_value_and_take_none_that_follows() {
        let given = given(&["aggregator", "--disable_export", "--store_label", "a=b", "--store-label=c"]);
        assert_eq!(given.last("disable-export"), Some("true"));
        assert_eq!(given.all("store-label"), ["a=b", "c"]);
        assert!(!given.in_its_place);
        assert_eq!(given.any(), Some("store-label"));
    }
}
