//! Makes sure that a database and its retention policy are there.
//!
//! Statements of InfluxQL, whose errors come with status 200 in
//! `{"results":[{"statement_id":0,"error":"…"}]}`. Making what is there already
//! is no error; making a policy that is there with another duration is one, and
//! then it is altered where a duration was asked for, and else left as it is.
//! A user who may only write is told so, and the write itself then tells whether
//! the database is there.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::push::delivery::Unprepared;
use crate::push::delivery::client::{Answer, Http, Outgoing, below};

/// What writes need.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) database: &'a str,
    pub(super) policy: &'a str,
    pub(super) retention: Option<Duration>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Results {
    results: Vec<Outcome>,
    error: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Outcome {
    error: Option<String>,
}

/// What came of a statement.
enum Done {
    Yes,
    /// Something of that name is there, but different.
    Conflict,
    /// This user may not.
    Denied(String),
}

impl Wanted<'_> {
    pub(super) async fn ensure(&self, http: &mut Http) -> Result<(), Unprepared> {
        // Any answer shows that it is up; what it cannot do, it says below.
        let ping = Outgoing::get(below(&http.url, "ping"));
        let pong = http.send(ping).await.map_err(Unprepared::Send)?;
        if pong.status >= 500 {
            return Err(Unprepared::Answer(pong));
        }
        let (database, policy) = (quoted(self.database), quoted(self.policy));
        let duration = match self.retention {
            Some(time) if !time.is_zero() => format!("{}s", time.as_secs()),
            _ => "INF".to_owned(),
        };
        let made = statement(
            http,
            &format!("CREATE DATABASE {database} WITH DURATION {duration} REPLICATION 1 NAME {policy}"),
        )
        .await?;
        match made {
            Done::Yes => return Ok(()),
            Done::Denied(said) => {
                tracing::info!(
                    said,
                    database = self.database,
                    "may not create the database; going on to write"
                );
                return Ok(());
            }
            Done::Conflict => {}
        }
        // There with other policies: those of somebody else stay as they are.
        let made = statement(
            http,
            &format!(
                "CREATE RETENTION POLICY {policy} ON {database} DURATION {duration} REPLICATION 1 DEFAULT"
            ),
        )
        .await?;
        if matches!(made, Done::Conflict) && self.retention.is_some() {
            let altered = statement(
                http,
                &format!("ALTER RETENTION POLICY {policy} ON {database} DURATION {duration}"),
            )
            .await?;
            if matches!(altered, Done::Yes) {
                tracing::info!(database = self.database, policy = self.policy, duration, "retention changed");
            }
        }
        Ok(())
    }
}

async fn statement(http: &mut Http, text: &str) -> Result<Done, Unprepared> {
    let form = Url::parse_with_params("http://form/", [("q", text)]).ok();
    let body = form.as_ref().and_then(Url::query).unwrap_or_default().to_owned();
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    let outgoing = Outgoing {
        method: Method::POST,
        url: below(&http.url, "query"),
        headers: vec![(CONTENT_TYPE, form)],
        body: Bytes::from(body),
    };
    let answer = http.send(outgoing).await.map_err(Unprepared::Send)?;
    judge(answer)
}

fn judge(answer: Answer) -> Result<Done, Unprepared> {
    let results: Results = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error = results.error.or_else(|| results.results.into_iter().find_map(|r| r.error));
    match (answer.status, error) {
        (200..=299, None) => Ok(Done::Yes),
        (200..=299, Some(said)) if said.contains("conflict") || said.contains("already exists") => {
            Ok(Done::Conflict)
        }
        // Told by InfluxDB with status 403, and with 200 for single statements.
        (200..=299 | 403, Some(said)) => Ok(Done::Denied(said)),
        _ => Err(Unprepared::Answer(answer)),
    }
}

/// An identifier of InfluxQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |status, body: &'static str, expected: &str| {
            let got = match judge(Answer { status, retry_after: None, body: Bytes::from(body) }) {
                Ok(Done::Yes) => "yes",
                Ok(Done::Conflict) => "conflict",
                Ok(Done::Denied(_)) => "denied",
                Err(_) => "again",
            };
            assert_eq!(got, expected, "{status} {body}");
        };
        check(200, r#"{"results":[{"statement_id":0}]}"#, "yes");
        check(
            200,
            r#"{"results":[{"statement_id":0,"error":"retention policy conflicts with an existing policy"}]}"#,
            "conflict",
        );
        check(
            200,
            r#"{"results":[{"statement_id":0,"error":"retention policy already exists"}]}"#,
            "conflict",
        );
        check(403, r#"{"error":"error authorizing query: u not authorized to execute statement"}"#, "denied");
        check(401, r#"{"error":"authorization failed"}"#, "again");
        check(503, "", "again");
    }

    #[test]
    fn identifiers_cannot_end_the_statement() {
        assert_eq!(quoted(r#"a"; DROP DATABASE "b"#), r#""a\"; DROP DATABASE \"b""#);
        assert_eq!(quoted(r"a\"), r#""a\\""#);
    }
}
