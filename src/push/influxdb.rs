//! InfluxDB 1.x and 2.x: line protocol under Heapster's names, gzip.
//!
//! Times are nanoseconds, on the grid. Version 1.x gets its database and
//! retention policy made; in 2.x an organisation's bucket is there or not.
//!
//! A write of 1.x that has bad points in it keeps the good ones and answers 400
//! with `partial write: … dropped=N`. The bad ones are found by sending halves:
//! what was kept is overwritten by itself. Points older than the retention
//! policy need no search, nor do those beyond the server's limits on series.

mod line;
mod prepare;

use std::collections::HashMap;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};

use crate::gzip::Gzip;
use crate::push::batch::{Batch, DecodeError, Entity};
use crate::push::delivery::client::{Answer, Http, Outgoing, TokenScheme, below};
use crate::push::delivery::verdict::{self, Verdict};
use crate::push::delivery::{Prepared, Sink, Step};
use crate::push::target::{Protocol, Target};
use crate::telemetry::push::Rejected;
use line::Lines;
use prepare::Wanted;

/// One InfluxDB.
#[derive(Debug)]
pub struct Influxdb {
    protocol: Protocol,
    lines: Lines,
    /// Of the step last looked at, which entities have no lines.
    shadowed: Option<(u64, Vec<bool>)>,
}

impl Influxdb {
    /// A sink for a target of this kind; `None` for others.
    pub fn new(target: &Target) -> Option<Influxdb> {
        let (Protocol::Influxdb { schema, .. } | Protocol::Influxdb2 { schema, .. }) = &target.protocol
        else {
            return None;
        };
        let lines = Lines::new(schema.clone(), target.labels.clone());
        Some(Influxdb { protocol: target.protocol.clone(), lines, shadowed: None })
    }
}

impl Sink for Influxdb {
    fn token_scheme(&self) -> TokenScheme {
        match self.protocol {
            Protocol::Influxdb2 { .. } => TokenScheme::Token,
            _ => TokenScheme::Bearer,
        }
    }

    fn prepare<'a>(&'a mut self, http: &'a mut Http) -> Prepared<'a> {
        let Protocol::Influxdb { database, policy, retention, .. } = &self.protocol else {
            return Box::pin(std::future::ready(Ok(())));
        };
        Box::pin(async move { Wanted { database, policy, retention: *retention }.ensure(http).await })
    }

    fn encode(
        &mut self,
        step: &Step,
        from: usize,
        limit: usize,
        body: &mut Vec<u8>,
    ) -> Result<Option<usize>, DecodeError> {
        let batch = &*step.batch()?;
        let shadowed = match self.shadowed.take() {
            Some((sequence, shadowed)) if sequence == step.sequence && from > 0 => shadowed,
            _ => shadowed(batch),
        };
        let mut left = None;
        for (at, entity) in batch.entities().enumerate().skip(from) {
            if shadowed.get(at).copied().unwrap_or(false) || entity.has_ended() {
                continue;
            }
            let before = body.len();
            self.lines.entity(batch, &entity, body);
            if body.len() > limit && before > 0 {
                body.truncate(before);
                left = Some(at);
                break;
            }
        }
        self.shadowed = Some((step.sequence, shadowed));
        Ok(left)
    }

    fn item(&self, body: &[u8]) -> usize {
        body.iter().position(|b| *b == b'\n').map_or(body.len(), |end| end + 1)
    }

    fn request(&mut self, http: &Http, items: &[u8]) -> Outgoing {
        let mut url = match &self.protocol {
            Protocol::Influxdb2 { .. } => below(&http.url, "api/v2/write"),
            _ => below(&http.url, "write"),
        };
        match &self.protocol {
            Protocol::Influxdb { database, policy, .. } => {
                url.query_pairs_mut()
                    .append_pair("db", database)
                    .append_pair("rp", policy)
                    .append_pair("precision", "ns");
            }
            Protocol::Influxdb2 { organisation, bucket, .. } => {
                let mut query = url.query_pairs_mut();
                if !organisation.is_empty() {
                    query.append_pair("org", organisation);
                }
                query.append_pair("bucket", bucket).append_pair("precision", "ns");
            }
            _ => {}
        }
        let text = (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        let (headers, body) = match gzip(items) {
            Ok(body) => (vec![text, (CONTENT_ENCODING, HeaderValue::from_static("gzip"))], body),
            // Memory takes every byte, so this is never reached.
            Err(_) => (vec![text], items.to_vec()),
        };
        Outgoing { method: Method::POST, url, headers, body: Bytes::from(body) }
    }

    fn probe(&mut self, http: &Http) -> Outgoing {
        Outgoing::get(match self.protocol {
            Protocol::Influxdb2 { .. } => below(&http.url, "health"),
            _ => below(&http.url, "ping"),
        })
    }

    fn judge(&mut self, answer: &Answer) -> Verdict {
        let text = String::from_utf8_lossy(&answer.body);
        let partial = text.contains("partial write");
        match answer.status {
            // 2.x answers 422 where 1.x says 400.
            400 | 422 if partial && verdict::says_too_old(&text) => {
                Verdict::TakenExcept { lost: dropped(&text), why: Rejected::TooOld }
            }
            400 | 422 if verdict::says_too_old(&text) => Verdict::Unacceptable(Rejected::TooOld),
            400 | 422 if partial && (text.contains("max-series-per") || text.contains("max-values-per")) => {
                Verdict::TakenExcept { lost: dropped(&text), why: Rejected::Limit }
            }
            404 if text.contains("database not found") => Verdict::Unprepared,
            400 | 404 | 500 if text.contains("retention policy not found") => Verdict::Unprepared,
            _ => verdict::by_status(answer),
        }
    }

    fn show(&self, item: &[u8]) -> String {
        String::from_utf8_lossy(item).trim_end().to_owned()
    }
}

/// How many points a partial write has dropped.
fn dropped(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once("dropped=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn gzip(items: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = Gzip::new(Vec::with_capacity(items.len() / 8), Compression::fast());
    encoder.write_all(items)?;
    encoder.finish()
}

/// Heapster's tags have no ids, so that a container that was started again within
/// a step has the same as the one before. Of those the one counts that is there,
/// and of several the one that was started last; true for the others.
fn shadowed(batch: &Batch) -> Vec<bool> {
    let rank = |e: &Entity<'_>| (!e.has_ended(), !e.is_departed(), e.start_ms());
    let mut best: HashMap<_, (usize, _)> = HashMap::new();
    let mut shadowed = Vec::new();
    for (at, entity) in batch.entities().enumerate() {
        let name = entity.container().or(entity.name());
        // What has no name goes by its id, and those differ.
        let unnamed = if name.is_none() { entity.container_id() } else { None };
        let key = (entity.kind(), entity.node(), entity.namespace(), entity.pod(), name, unnamed);
        shadowed.push(false);
        let mut loser = None;
        best.entry(key)
            .and_modify(|(held, held_rank)| {
                if rank(&entity) > *held_rank {
                    loser = Some(*held);
                    (*held, *held_rank) = (at, rank(&entity));
                } else {
                    loser = Some(at);
                }
            })
            .or_insert_with(|| (at, rank(&entity)));
        if let Some(loser) = loser.and_then(|loser| shadowed.get_mut(loser)) {
            *loser = true;
        }
    }
    shadowed
}
