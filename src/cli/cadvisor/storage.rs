//! cAdvisor's storage drivers → `--push`, where that writes to the same database, or
//! why not and what does.

/// Drivers that are not served, and what to do instead.
const REFUSED: [(&str, &str); 6] = [
    ("bigquery", "--push remote-write: to a receiver that forwards"),
    ("elasticsearch", "--push remote-write: to Metricbeat's prometheus module"),
    ("kafka", "--push remote-write: to Telegraf or prometheus-kafka-adapter"),
    ("redis", "--push remote-write: to Telegraf, which has an output for Redis"),
    ("statsd", "--push remote-write: to Telegraf, which has an output for StatsD"),
    ("stdout", "nodegauge once --format json, which prints one collection"),
];

/// What is told where one is served.
pub(super) const TAKEN: &str = "taken as --push influxdb:, whose measurements are Heapster's, not cAdvisor's";

/// What the flags of all drivers say.
#[derive(Debug, Default)]
pub(super) struct Storage {
    drivers: String,
    host: String,
    database: String,
    policy: String,
    secure: bool,
    credentials: bool,
}

impl Storage {
    /// Takes a flag's value; `None` where the flag means nothing here.
    pub(super) fn take(&mut self, name: &str, text: String) -> Option<()> {
        match name {
            "storage_driver" => self.drivers = text,
            "storage_driver_host" => self.host = text,
            "storage_driver_db" => self.database = text,
            "storage_driver_influxdb_retention_policy" => self.policy = text,
            "storage_driver_secure" => self.secure = text == "true",
            "storage_driver_user" | "storage_driver_password" => self.credentials |= !text.is_empty(),
            _ => return None,
        }
        Some(())
    }

    /// The URI for `--push`; `None` where nothing is to be stored.
    ///
    /// # Errors
    /// One line for the user about a driver that is not served. It holds no password.
    pub(super) fn push(&self) -> Result<Option<String>, String> {
        let mut push = None;
        for driver in self.drivers.split(',').map(str::trim).filter(|driver| !driver.is_empty()) {
            if driver == "influxdb" {
                push = Some(self.influxdb()?);
                continue;
            }
            let instead = REFUSED.iter().find(|(name, _)| *name == driver).map(|(_, instead)| instead);
            return Err(match instead {
                Some(instead) => format!("-storage_driver {driver:?}: not served; instead: {instead}"),
                None => format!("-storage_driver {driver:?}: unknown; accepted: influxdb, or --push"),
            });
        }
        Ok(push)
    }

    fn influxdb(&self) -> Result<String, String> {
        let or = |text: &str, usual: &str| if text.is_empty() { usual.to_owned() } else { text.to_owned() };
        let scheme = if self.secure { "https" } else { "http" };
        let (host, database) = (or(&self.host, "localhost:8086"), or(&self.database, "cadvisor"));
        let mut uri = format!("influxdb:{scheme}://{host}?db={database}");
        if !self.policy.is_empty() {
            uri.push_str(&format!("&rp={}", self.policy));
        }
        if self.credentials {
            return Err(format!(
                "-storage_driver_user and -storage_driver_password: a password on the command line shows in process \
                 listings; accepted: --push '{uri}&user=NAME&password-file=FILE' in the place of -storage_driver"
            ));
        }
        Ok(uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(flags: &[(&str, &str)]) -> Result<Option<String>, String> {
        let mut storage = Storage::default();
        flags.iter().for_each(|(name, text)| storage.take(name, (*text).to_owned()).unwrap());
        storage.push()
    }

    #[test]
    fn influxdb_is_written_to() {
        let check = |flags: &[(&str, &str)], expected: &str| {
            let uri = push(flags).unwrap().unwrap();
            assert_eq!(uri, expected);
            crate::push::target::Target::parse(&uri).unwrap();
        };
        check(&[("storage_driver", "influxdb")], "influxdb:http://localhost:8086?db=cadvisor");
        let flags = [
            ("storage_driver", "influxdb"),
            ("storage_driver_host", "db:8086"),
            ("storage_driver_db", "k8s"),
            ("storage_driver_secure", "true"),
            ("storage_driver_influxdb_retention_policy", "week"),
        ];
        check(&flags, "influxdb:https://db:8086?db=k8s&rp=week");
        // The flags of drivers alone ask for none.
        assert_eq!(push(&flags[1..]), Ok(None));
        assert_eq!(push(&[("storage_driver", "")]), Ok(None));
        assert_eq!(Storage::default().take("storage_driver_table", "stats".into()), None);
    }

    #[test]
    fn what_is_not_served_is_refused_with_what_is() {
        let check = |flags: &[(&str, &str)], parts: &[&str]| {
            let text = push(flags).unwrap_err();
            assert!(parts.iter().all(|part| text.contains(part)) && !text.contains("secret"), "{text}");
        };
        for (driver, instead) in REFUSED {
            check(&[("storage_driver", driver)], &["-storage_driver", driver, instead]);
        }
        check(&[("storage_driver", "influxdb,kafka")], &["\"kafka\"", "Telegraf"]);
        check(&[("storage_driver", "mysql")], &["\"mysql\": unknown"]);
        let with_password = [("storage_driver", "influxdb"), ("storage_driver_password", "secret")];
        check(
            &with_password,
            &["--push 'influxdb:http://localhost:8086?db=cadvisor&user=NAME&password-file=FILE'"],
        );
    }
}
