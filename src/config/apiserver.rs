//! Settings of the aggregated API server.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::Layers;
use crate::auth::TlsFiles;
use crate::auth::delegated::Given;
use crate::cli::Settings;

/// Settings that mean something to it alone.
pub(super) const OWN: [&str; 9] = [
    "api-listen",
    "api-tls-cert",
    "api-tls-key",
    "client-ca-file",
    "requestheader-client-ca-file",
    "requestheader-allowed-names",
    "requestheader-username-headers",
    "requestheader-group-headers",
    "requestheader-extra-headers-prefix",
];

/// What firewalls of managed control planes let through to nodes.
const PORT: u16 = 10_250;

/// How the aggregated API server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServerConfig {
    /// Where it serves.
    pub listen: SocketAddr,
    /// Its certificate and key.
    pub tls: TlsFiles,
    /// What was said about whom it believes.
    pub given: Given,
}

impl Layers {
    /// It is served where an address or a certificate for it is given; `usual` has
    /// the certificate of the other listener.
    ///
    /// # Errors
    /// A setting is malformed, or they contradict each other.
    pub(super) fn api_server(&self, usual: Option<&TlsFiles>) -> Result<Option<ApiServerConfig>> {
        let path = |text: &str| match text {
            "" => bail!("no path; accepted: a readable file"),
            path => Ok(PathBuf::from(path)),
        };
        let listen = self.parse(
            "api-listen",
            |s| &s.api_listen,
            |text| {
                text.parse().map_err(|_| anyhow!("not an address; accepted: IP:PORT, such as 0.0.0.0:10250"))
            },
        )?;
        let certificate = self.parse("api-tls-cert", |s| &s.api_tls_cert, path)?;
        let key = self.parse("api-tls-key", |s| &s.api_tls_key, path)?;
        let given = Given {
            client_ca: self.parse("client-ca-file", |s| &s.client_ca_file, path)?,
            proxy_ca: self.parse(
                "requestheader-client-ca-file",
                |s| &s.requestheader_client_ca_file,
                path,
            )?,
            names: self.listed(|s| &s.requestheader_allowed_names),
            username_headers: self.listed(|s| &s.requestheader_username_headers),
            group_headers: self.listed(|s| &s.requestheader_group_headers),
            extra_prefixes: self.listed(|s| &s.requestheader_extra_headers_prefix),
        };
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_ca: None }),
            (None, None) => None,
            (Some(_), None) => bail!("--api-tls-cert: given without --api-tls-key; accepted: both or none"),
            (None, Some(_)) => bail!("--api-tls-key: given without --api-tls-cert; accepted: both or none"),
        };
        if listen.is_none() && tls.is_none() {
            if given != Given::default() {
                bail!(
                    "--client-ca-file, --requestheader-…: nobody would be asked; accepted: with --api-listen or \
                     --api-tls-cert"
                );
            }
            return Ok(None);
        }
        // Without its CA nobody is a front proxy whose name or headers could count.
        if given.proxy_ca.is_none() && (Given { client_ca: None, ..given.clone() }) != Given::default() {
            bail!(
                "--requestheader-…: given without --requestheader-client-ca-file; accepted: with it, or none, so that \
                 the API server says all of it"
            );
        }
        let usual = usual.map(|files| TlsFiles { client_ca: None, ..files.clone() });
        let Some(tls) = tls.or(usual) else {
            bail!(
                "--api-listen: Kubernetes asks by TLS only; accepted: with --api-tls-cert and --api-tls-key, or \
                 --tls-cert and --tls-key"
            );
        };
        let listen = listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], PORT)));
        Ok(Some(ApiServerConfig { listen, tls, given }))
    }

    /// The words of a list, none where it is not given.
    fn listed(&self, get: impl Fn(&Settings) -> &Option<Vec<String>>) -> Vec<String> {
        let given = self.0.iter().find_map(|(_, settings)| get(settings).as_ref());
        given.map(|list| super::words(list).map(str::to_owned).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::aggregator::tests::load;

    fn files(certificate: &str, key: &str) -> TlsFiles {
        TlsFiles { certificate: certificate.into(), key: key.into(), client_ca: None }
    }

    #[test]
    fn it_is_served_where_it_is_asked_for() {
        let api = |words: &[&str]| load(words, &[]).unwrap().api;
        assert_eq!(api(&[]), None);
        assert_eq!(api(&["--tls-cert", "c", "--tls-key", "k"]), None);
        let own = api(&["--api-tls-cert=a", "--api-tls-key=b"]).unwrap();
        assert_eq!((own.listen.to_string(), own.tls), ("0.0.0.0:10250".to_owned(), files("a", "b")));
        assert_eq!(own.given, Given::default());
        let shared =
            ["--api-listen=[::1]:443", "--tls-cert=c", "--tls-key=k", "--auth=token", "--tls-client-ca=x"];
        let shared = api(&shared).unwrap();
        assert_eq!((shared.listen.to_string(), shared.tls), ("[::1]:443".to_owned(), files("c", "k")));
        let said = [
            "--api-tls-cert=a",
            "--api-tls-key=b",
            "--requestheader-client-ca-file=p",
            "--requestheader-allowed-names=front-proxy-client,aggregator",
            "--requestheader-username-headers=X-User",
        ];
        let given = api(&said).unwrap().given;
        assert_eq!(given.username_headers, ["X-User"]);
        assert_eq!((given.proxy_ca, given.client_ca), (Some("p".into()), None));
        assert_eq!(given.names, ["front-proxy-client", "aggregator"]);
    }

    #[test]
    fn contradictions() {
        let check = |words: &[&str], expected: &str| {
            let error = format!("{:#}", load(words, &[]).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check(&["--api-listen", "10250"], "--api-listen \"10250\": not an address; accepted: IP:PORT");
        check(
            &["--api-listen", "[::]:1"],
            "--api-listen: Kubernetes asks by TLS only; accepted: with --api-tls-cert",
        );
        check(&["--api-tls-cert", "a"], "--api-tls-cert: given without --api-tls-key");
        check(&["--client-ca-file", "a"], "nobody would be asked");
        check(
            &["--api-tls-cert=a", "--api-tls-key=b", "--requestheader-allowed-names=x"],
            "given without --requestheader-client-ca-file",
        );
    }
}
